"""Networks: one paper, one file; `NETS` lists them, `create_net` makes them."""

from collections.abc import Callable
from typing import Any

from torch import nn

from voxpool.errors import UsageError
from voxpool.nets.heads import VERSIONS, SupervoxelNet
from voxpool.nets.segresnet import SegResNet
from voxpool.nets.voxresnet import VoxResNet

__all__ = ["NETS", "VERSIONS", "SegResNet", "SupervoxelNet", "VoxResNet", "count_parameters", "create_net"]

NETS: dict[str, Callable[..., nn.Module]] = {"voxresnet": VoxResNet, "segresnet": SegResNet}


def create_net(
    name: str, in_channels: int = 1, num_classes: int = 4, *, head: str = "base", **options: Any
) -> nn.Module:
    """Make a network, with a supervoxel head where one is named.

    Args:
        name: A key of `NETS`.
        in_channels: Number of image channels.
        num_classes: Number of classes, background included.
        head: "base" for the network alone, or "v1", "v2", "v3".
        **options: Options of the network, such as `reduction` of VoxResNet.

    Returns:
        The network in training mode, on the CPU; `forward(x)`, or `forward(x, segments, num_segments)` with a head.

    Raises:
        UsageError: If the name or head is unknown.

    Example:
        >>> net = create_net("voxresnet", reduction=8, head="v3")
        >>> count_parameters(net)
        14340
    """
    if name not in NETS:
        raise UsageError(f"unknown network {name!r}; take one of {', '.join(NETS)}")
    base = NETS[name](in_channels, num_classes, **options)
    return base if head == "base" else SupervoxelNet(base, head)  # type: ignore[arg-type]


def count_parameters(net: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
