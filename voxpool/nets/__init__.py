"""Networks: one paper, one file; `NETS` lists those for volumes, `create_net` makes them and those for images."""

from collections.abc import Callable
from typing import Any

from torch import nn

from voxpool.errors import UsageError
from voxpool.nets.guided import GuidedVoxResNet
from voxpool.nets.heads import HEADS, VERSIONS, SupervoxelNet
from voxpool.nets.monai_net import MonaiNet
from voxpool.nets.segresnet import SegResNet
from voxpool.nets.voxresnet import VoxResNet
from voxpool.nets2d import PLANAR_NETS, create_planar

__all__ = [
    "HEADS",
    "IMPORTED",
    "NETS",
    "VERSIONS",
    "GuidedVoxResNet",
    "MonaiNet",
    "SegResNet",
    "SupervoxelNet",
    "VoxResNet",
    "add_head",
    "count_parameters",
    "create_net",
]

NETS: dict[str, Callable[..., nn.Module]] = {
    "voxresnet": VoxResNet,
    "segresnet": SegResNet,
    "guided_voxresnet": GuidedVoxResNet,
}

IMPORTED: dict[str, Callable[..., nn.Module]] = {"monai": MonaiNet}
"""Networks that come with their weights from other programs; to be used, not to be trained anew."""


def create_net(
    name: str, in_channels: int | None = None, num_classes: int | None = None, *, head: str = "base", **options: Any
) -> nn.Module:
    """Make a network, with a supervoxel head where one is named.

    Args:
        name: A key of `NETS`, of `IMPORTED` or of `voxpool.nets2d.PLANAR_NETS`.
        in_channels: Number of image channels; None for 1, or for 3 of a network for images.
        num_classes: Number of classes, background included; None for 4, or for those of an image network's published
            configuration.
        head: "base" for the network alone, or a key of `HEADS`: "v1", "v2", "v3", "v3stats", "v3nested"; for a
            network for images "superpixels".
        **options: Options of the network, such as `reduction` of VoxResNet.

    Returns:
        The network in training mode, on the CPU; `forward(x)`, or `forward(x, segments, num_segments)` with a head.

    Raises:
        UsageError: If the name or head is unknown, or they do not go together.

    Example:
        >>> net = create_net("voxresnet", reduction=8, head="v3")
        >>> count_parameters(net)
        14340
    """
    if name in PLANAR_NETS:
        return create_planar(name, 3 if in_channels is None else in_channels, num_classes, head=head, **options)
    if name in IMPORTED and head != "base":
        raise UsageError(f"network {name!r} comes from another program and has no place for a head, got {head!r}")
    if name not in NETS and name not in IMPORTED:
        raise UsageError(f"unknown network {name!r}; take one of {', '.join([*NETS, *PLANAR_NETS])}")
    channels, classes = 1 if in_channels is None else in_channels, 4 if num_classes is None else num_classes
    base = (NETS | IMPORTED)[name](channels, classes, **options)
    return base if head == "base" else add_head(base, head)


def add_head(base: nn.Module, head: str) -> SupervoxelNet:
    """Give a network a supervoxel head; it takes over the network.

    Args:
        base: Network with `features()` and `head`.
        head: A key of `HEADS`.

    Raises:
        UsageError: If the head is unknown.
    """
    if head not in HEADS:
        raise UsageError(f"head must be base or one of {', '.join(HEADS)}, got {head!r}")
    return SupervoxelNet(base, **HEADS[head])


def count_parameters(net: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
