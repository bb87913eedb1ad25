"""Pooling kernels out of torch operations only: any device, no compiler.

They need scratch memory of a few arrays of the size of `x`. Maxima are the same from run to run on every
device. Sums are so on the CPU; on CUDA their last bits depend on the order of atomic additions unless
`torch.use_deterministic_algorithms(True)` is set.
"""

import torch
from torch import Tensor

from voxpool.kernels import layout

# Elements of x that are copied to float64 at a time.
_SUM_BLOCK = 1 << 24


def _slots(segments: Tensor, num_segments: int) -> Tensor:
    """Return ids as int64 with everything outside 0..K-1 sent to the spare slot K.

    On CUDA ids are not checked (that would wait for the device); the spare slot keeps a wrong one from
    writing into another segment.
    """
    inside = (segments >= 0) & (segments < num_segments)
    return torch.where(inside, segments, num_segments).to(torch.int64)


def _position_dtype(size: int) -> torch.dtype:
    """Return the narrowest type that holds the positions 0..size-1 and the mark `size` for "nowhere"."""
    return torch.int32 if size < 2**31 else torch.int64


def plan(segments: Tensor, num_segments: int, space: tuple[int, ...]) -> list[Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.plan`: there is nothing to prepare."""
    return []


def segment_max(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_max`."""
    samples, channels, size = x.shape
    slots = _slots(segments, num_segments).unsqueeze(1).expand(samples, channels, size)
    best = x.new_full((samples, channels, num_segments + 1), float("-inf"))
    best.scatter_reduce_(2, slots, x, "amax")
    # A segment with a NaN has best NaN, which equals nothing: there only the NaNs themselves are candidates.
    wins = (x == best.gather(2, slots)) | x.isnan()
    positions = torch.arange(size, dtype=_position_dtype(size), device=x.device)
    first = torch.full(best.shape, size, dtype=positions.dtype, device=x.device)
    first.scatter_reduce_(2, slots, torch.where(wins, positions, size), "amin")
    first = first[..., :num_segments].to(torch.int64)
    empty = first == size
    argmax = first.masked_fill(empty, -1)
    if size == 0:
        return x.new_zeros(argmax.shape), argmax
    # Read back from x, not from best: amax may return either of the equal zeros -0 and +0.
    values = x.gather(2, first.masked_fill(empty, 0)).masked_fill(empty, 0)
    return values, argmax


def _totals(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    samples, channels, size = x.shape
    # Metal has no float64; there long sums carry float32 rounding.
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    slots = _slots(segments, num_segments).unsqueeze(1)
    totals = torch.zeros((samples, channels, num_segments + 1), dtype=dtype, device=x.device)
    step = max(1, _SUM_BLOCK // max(1, samples * size))
    for start in range(0, channels, step):
        block = x[:, start : start + step]
        totals[:, start : start + step].scatter_add_(2, slots.expand(block.shape), block.to(dtype))
    return totals[..., :num_segments]


def segment_sum(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _totals(x, segments, num_segments).to(x.dtype).contiguous()


def segment_mean(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    slots = _slots(segments, num_segments)
    counts = torch.zeros((len(segments), num_segments + 1), dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, slots, torch.ones_like(slots))
    counts = counts[:, :num_segments].contiguous()
    means = _totals(x, segments, num_segments) / counts.clamp(min=1).unsqueeze(1)
    return means.to(x.dtype), counts


def unpool(pooled: Tensor, segments: Tensor, base: Tensor | None, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    samples, channels, num_segments = pooled.shape
    slots = _slots(segments, num_segments).unsqueeze(1).expand(samples, channels, segments.shape[1])
    with_spare = torch.cat([pooled, pooled.new_zeros((samples, channels, 1))], dim=2)
    out = with_spare.gather(2, slots)
    return layout.arrange(out if base is None else out.add_(base), channels_last=channels_last)


def scatter(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.scatter`."""
    samples, channels, _ = pooled.shape
    # empty segments write to a spare voxel behind the last
    out = pooled.new_zeros((samples, channels, size + 1))
    out.scatter_(2, torch.where(argmax < 0, size, argmax), pooled)
    return layout.arrange(out[..., :size], channels_last=channels_last)
