"""How the sizes of networks are counted: parameters without batch norms, and multiply-accumulates."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voxpool.layers.blocks import Blocks


def count_folded(net: nn.Module) -> int:
    """Number of parameters without those of batch norms, as light networks publish it: they are folded away."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    affine = sum(p.numel() for module in net.modules() if isinstance(module, norms) for p in module.parameters())
    return sum(p.numel() for p in net.parameters()) - affine


def count_macs(net: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of all convolutions for an input of a shape (N, C, *S); nothing is computed.

    Args:
        net: Network, on any device; moved to the meta device and of no use afterwards.
        shape: Shape of the input.
    """
    net = net.to("meta").eval()
    with torch.no_grad():
        return count_macs_of(net, lambda: net(torch.empty(tuple(shape), device="meta")))


def count_macs_of(net: nn.Module, call: Callable[[], object]) -> int:
    """Multiply-accumulates of all convolutions of a network while something is called, on tensors or blocks.

    Args:
        net: Network that the call runs.
        call: What to count.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        # torch types a module's attributes as tensors or modules; the hooked kinds have a weight
        weight: Tensor = module.weight  # type: ignore[assignment]
        transposed = isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        maps = inputs[0] if transposed else output
        positions = maps.positions if isinstance(maps, Blocks) else maps.numel() // maps.shape[1]
        total += positions * weight.numel()

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, kinds)]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return total
