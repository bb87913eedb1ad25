"""Padding of blocks on NVIDIA GPUs: launches `cuda/block_pad.cu` on torch's memory and stream.

Sizes are arguments of the kernels, so that a new shape compiles nothing. Forward and backward gather: no atomics.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxpool.kernels import _cuda
from voxpool.kernels.block_pad_torch import Padding

_ELEMENTS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "float", torch.float64: "double"}
_THREADS = 256
_AXES = 3


@dataclass(frozen=True)
class Places:
    """Where the blocks of a grid lie, made once for all layers of a network; int32.

    Attributes:
        index: What lies where, (N, *G), see `voxpool.kernels.block_pad_torch`.
        high: Flat entry of the index of each block of full resolution.
        low: The same of the others.
    """

    index: Tensor
    high: Tensor
    low: Tensor

    @classmethod
    def of(cls, index: Tensor) -> "Places":
        """The places that an index says; waits for the device."""
        flat = index.reshape(-1)
        entries = (kind.nonzero()[:, 0].to(torch.int32) for kind in (flat >= 0, flat < 0))
        return cls(index.contiguous(), *entries)


def serves(x: Tensor) -> bool:
    """Whether these kernels take a tensor: on a GPU where CuPy runs, in one of the dtypes they know."""
    return x.device.type == "cuda" and x.dtype in _ELEMENTS and _cuda.refusal() is None


@functools.cache
def kernel_names(dtype: torch.dtype) -> tuple[str, ...]:
    """The kernels for blocks of a dtype."""
    kinds = ("pad_blocks", "pad_blocks_backward")
    return tuple(f"{kind}<{_ELEMENTS[dtype]}, {high}>" for kind in kinds for high in ("true", "false"))


def pad_blocks(high: Tensor, low: Tensor, places: Places, padding: Padding, value: float) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.block_pad_torch.pad_blocks`; it takes places instead of a plan."""
    given = high.contiguous(), low.contiguous()
    wide = np.float64 if high.dtype == torch.float64 else np.float32
    outs = []
    for number, blocks in enumerate(given):
        sides = [size + 2 * p for size, p in zip(blocks.shape[1:-1], padding.pad, strict=True)]
        outs.append(blocks.new_empty((len(blocks), *sides, blocks.shape[-1])))
        _launch("pad_blocks", given, places, outs[-1], (wide(value),), padding, high=number == 0)
    return outs[0], outs[1]


def pad_blocks_backward(high: Tensor, low: Tensor, places: Places, padding: Padding) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.block_pad_torch.pad_blocks_backward`."""
    given = high.contiguous(), low.contiguous()
    outs = []
    for number, grad in enumerate(given):
        sides = [size - 2 * p for size, p in zip(grad.shape[1:-1], padding.pad, strict=True)]
        outs.append(grad.new_empty((len(grad), *sides, grad.shape[-1])))
        _launch("pad_blocks_backward", given, places, outs[-1], (), padding, high=number == 0)
    return outs[0], outs[1]


def _launch(
    kernel: str,
    given: tuple[Tensor, Tensor],
    places: Places,
    out: Tensor,
    extra: tuple[np.generic, ...],
    padding: Padding,
    *,
    high: bool,
) -> None:
    """Run a kernel for the blocks of one resolution."""
    if out.numel() == 0:
        return
    index, entries = places.index, places.high if high else places.low
    dims = len(padding.side)
    # an image in 2D has a first axis of one block of one element
    lists = ((index.shape[1:], 1), (padding.side, 1), (padding.pad, 0), ((2,) * dims, 1))
    numbers = [n for values, missing in lists for n in (*[missing] * (_AXES - dims), *values)]
    numbers += [out.shape[-1], len(out), int(padding.replicate)]
    module = _cuda.module("block_pad.cu", kernel_names(out.dtype), out.device)
    function = module.get_function(f"{kernel}<{_ELEMENTS[out.dtype]}, {str(high).lower()}>")
    arrays = (*given, index, entries, out)
    values = (*map(_cuda.address, arrays), *extra, *map(np.int32, numbers))
    function((_cuda.blocks(out.numel(), _THREADS),), (_THREADS,), values)
