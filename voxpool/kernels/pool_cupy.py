"""Pooling kernels for NVIDIA GPUs: launches `cuda/pool.cu` through CuPy on torch's memory and stream.

With a plan nothing waits for the device, so that calls can be captured in a CUDA graph. Without one a plan is made for
the call, which waits once. Sums are added up in float32 (float64 for float64) as a tree that the segments alone decide,
so they have equal bits on every run, as maxima have.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from voxpool.kernels import _cuda, layout
from voxpool.kernels.pool_plan import Plan, check_size, make

_Partials = tuple[Tensor, Tensor | None]

_ELEMENTS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "float", torch.float64: "double"}
_THREADS = 256
_WARPS = _THREADS // 32
_MOST_BLOCKS = 65535  # along the second axis of a grid
_GROUP = 16
"""Channels that one warp or thread takes one after another, so that it reads its voxels or ids once for them."""


@functools.cache
def kernel_names(dtype: torch.dtype) -> tuple[str, ...]:
    """The kernels for maps of a dtype."""
    t = _ELEMENTS[dtype]
    reducing = ("pool_chunks", "pool_chunks_rows", "fold_pieces", "pool_pieces")
    return (
        *(f"{name}<{t}, {reduction}>" for name in reducing for reduction in ("Sum", "Max")),
        *(f"{name}<{t}, {pack}>" for name in ("unpool", "unpool_rows") for pack in (1, 4)),
        f"scatter<{t}>",
    )


def _launch(like: Tensor, kernel: str, grid: tuple[int, ...], *args: Tensor | np.generic | None) -> None:
    """Run `kernel<type of like, ...>`; `kernel` holds `{}` in place of the type."""
    module = _cuda.module("pool.cu", kernel_names(like.dtype), like.device)
    values = tuple(_cuda.address(a) if a is None or isinstance(a, Tensor) else a for a in args)
    module.get_function(kernel.format(_ELEMENTS[like.dtype]))(grid, (_THREADS,), values)


def _group(channels: int) -> int:
    return max(_GROUP, _cuda.blocks(channels, _MOST_BLOCKS))


def _width(channels: int) -> int:
    """How many neighbouring lanes take the channels of a voxel: a power of two up to 32."""
    return min(32, 1 << max(0, channels - 1).bit_length())


def _pack(length: int, *tensors: Tensor | None) -> int:
    """How many neighbours are moved at a time: 4 where rows of that length and their addresses allow it."""
    fits = all(t is None or t.data_ptr() % 16 == 0 for t in tensors)
    return 4 if length % 4 == 0 and fits else 1


def plan(segments: Tensor, num_segments: int, space: tuple[int, ...]) -> list[Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.plan`: the tensors of a `voxpool.kernels.pool_plan.Plan`."""
    return make(segments, num_segments, space).tensors()


def _partials(x: Tensor, rows: int, reduction: str) -> _Partials:
    """Memory for partials (rows, C) and, for maxima, their positions."""
    shape = (rows, x.shape[1])
    part = x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    return part, x.new_empty(shape, dtype=torch.int32) if reduction == "Max" else None


def _pool(
    x: Tensor, segments: Tensor, num_segments: int, tensors: list[Tensor], *, reduction: str, mean: bool = False
) -> tuple[Tensor, Tensor | None, Plan]:
    """Sums, means or maxima (N, C, K), the positions of maxima (N, C, K), and the plan."""
    samples, channels, size = x.shape
    order = Plan.of(tensors) if tensors else make(segments, num_segments, (size,))
    out = x.new_empty((samples, channels, num_segments))
    where = x.new_empty(out.shape, dtype=torch.int64) if reduction == "Max" else None
    if out.numel() == 0:
        return out, where, order
    partials = _reduce_chunks(x, order, reduction)
    *folds, last = order.levels
    for starts in folds:
        partials = _fold(x, partials, starts, reduction)
    groups = samples * num_segments
    arrays = (*partials, last, order.counts if mean else None, out, where)
    numbers = (np.int32(groups), np.int32(channels), np.int32(num_segments))
    _launch(x, f"pool_pieces<{{}}, {reduction}>", (_cuda.blocks(groups * channels, _THREADS),), *arrays, *numbers)
    return out, where, order


def _reduce_chunks(x: Tensor, order: Plan, reduction: str) -> _Partials:
    """Reduce every piece of every chunk."""
    channels, size = x.shape[1:]
    partials = _partials(x, len(order.piece_row), reduction)
    chunks = len(order.chunk_piece) - 1
    if chunks:
        rows = layout.is_channels_last(x)
        share = _width(channels) if rows else _group(channels)
        name = f"pool_chunks{'_rows' if rows else ''}<{{}}, {reduction}>"
        grid = (_cuda.blocks(chunks, _WARPS), _cuda.blocks(channels, share))
        numbers = (np.int32(chunks), np.int32(channels), np.int32(size), np.int32(share))
        _launch(x, name, grid, x, *order[:4], *partials, *numbers)
    return partials


def _fold(x: Tensor, partials: _Partials, starts: Tensor, reduction: str) -> _Partials:
    """Join the partials of every group."""
    groups, channels = len(starts) - 1, x.shape[1]
    joined = _partials(x, groups, reduction)
    numbers = (np.int32(groups), np.int32(channels))
    _launch(
        x,
        f"fold_pieces<{{}}, {reduction}>",
        (_cuda.blocks(groups * channels, _THREADS),),
        *partials,
        starts,
        *joined,
        *numbers,
    )
    return joined


def segment_max(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_max`."""
    maxima, argmax, _ = _pool(x, segments, num_segments, plan, reduction="Max")
    assert argmax is not None  # reductions named Max locate
    return maxima, argmax


def segment_sum(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _pool(x, segments, num_segments, plan, reduction="Sum")[0]


def segment_mean(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    means, _, order = _pool(x, segments, num_segments, plan, reduction="Sum", mean=True)
    return means, order.counts.reshape(len(x), num_segments).to(torch.int64)


def unpool(pooled: Tensor, segments: Tensor, base: Tensor | None, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    samples, channels, num_segments = pooled.shape
    size = segments.shape[1]
    check_size(samples * size)
    out = layout.empty(pooled, (samples, channels, size), channels_last=channels_last)
    if out.numel() == 0:
        return out
    under = None if base is None else layout.arrange(base, channels_last=channels_last)
    numbers = (np.int32(channels), np.int32(size), np.int32(num_segments))
    if channels_last:
        # neighbouring threads write neighbouring channels, and so read them from neighbours
        table = pooled.transpose(1, 2).contiguous()
        pack = _pack(channels, table, under, out)
        width, voxels = _width(channels // pack), samples * size
        arrays = (table, segments, under, out)
        grid = (_cuda.blocks(voxels * width, _THREADS),)
        _launch(out, f"unpool_rows<{{}}, {pack}>", grid, *arrays, np.int32(voxels), *numbers, np.int32(width))
    else:
        pack = _pack(size, segments, under, out)
        packs, group = samples * size // pack, _group(channels)
        arrays = (pooled, segments, under, out)
        plane = (_cuda.blocks(packs, _THREADS), _cuda.blocks(channels, group))
        _launch(out, f"unpool<{{}}, {pack}>", plane, *arrays, np.int32(packs), *numbers, np.int32(group))
    return out


def scatter(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.scatter`."""
    samples, channels, num_segments = pooled.shape
    out = layout.zeros(pooled, (samples, channels, size), channels_last=channels_last)
    if pooled.numel() == 0 or out.numel() == 0:
        return out
    _launch(
        pooled,
        "scatter<{}>",
        (_cuda.blocks(pooled.numel(), _THREADS),),
        pooled,
        argmax.contiguous(),
        out,
        np.int64(pooled.numel()),
        np.int32(channels),
        np.int32(num_segments),
        np.int64(size),
        np.int64(out.stride(1)),
        np.int64(out.stride(2)),
    )
    return out
