"""The reference: segment pooling spelled out with SciPy, sample by sample and channel by channel.

This module specifies the op. It is slow and exists to be read and to judge the other backends by.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxpool.kernels import layout


def _first_maximum(values: np.ndarray, positions: np.ndarray) -> np.int64:
    """Return where the maximum lies: NaN beats every number, among equal values the lowest index wins."""
    is_nan = np.isnan(values)
    winners = is_nan if is_nan.any() else values == values.max()
    return positions[winners].min()


def _rows(x: Tensor, segments: Tensor) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """List (n, c, values, ids) for every sample and channel; float64 holds every smaller float exactly."""
    values, ids = x.detach().double().numpy(), segments.numpy()
    return [(n, c, values[n, c], ids[n]) for n in range(x.shape[0]) for c in range(x.shape[1])]


def plan(segments: Tensor, num_segments: int, space: tuple[int, ...]) -> list[Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.plan`: there is nothing to prepare."""
    return []


def segment_max(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_max`."""
    argmax = torch.full((*x.shape[:2], num_segments), -1, dtype=torch.int64)
    if x.shape[2] == 0 or num_segments == 0:
        return x.new_zeros(argmax.shape), argmax
    index = np.arange(num_segments)
    for n, c, values, ids in _rows(x, segments):
        first = ndimage.labeled_comprehension(values, ids, index, _first_maximum, np.int64, -1, pass_positions=True)
        argmax[n, c] = torch.from_numpy(first)
    pooled = x.gather(2, argmax.clamp(min=0)).masked_fill(argmax < 0, 0)
    return pooled, argmax


def _totals(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    totals = torch.zeros((*x.shape[:2], num_segments), dtype=torch.float64)
    if x.shape[2] == 0 or num_segments == 0:
        return totals
    index = np.arange(num_segments)
    for n, c, values, ids in _rows(x, segments):
        totals[n, c] = torch.from_numpy(np.asarray(ndimage.sum_labels(values, ids, index)))
    return totals


def segment_sum(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _totals(x, segments, num_segments).to(x.dtype)


def segment_mean(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    ones = torch.ones((segments.shape[0], 1, segments.shape[1]))
    counts = _totals(ones, segments, num_segments)
    means = _totals(x, segments, num_segments) / counts.clamp(min=1)
    return means.to(x.dtype), counts.squeeze(1).long()


def unpool(pooled: Tensor, segments: Tensor, base: Tensor | None, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    out = layout.zeros(pooled, (*pooled.shape[:2], segments.shape[1]), channels_last=channels_last)
    for n, ids in enumerate(segments.long()):
        out[n][:, ids >= 0] = pooled[n][:, ids[ids >= 0]]
    return out if base is None else out.add_(base)


def scatter(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.scatter`."""
    out = layout.zeros(pooled, (*pooled.shape[:2], size), channels_last=channels_last)
    for n, c, k in argmax.ge(0).nonzero().tolist():
        out[n, c, argmax[n, c, k]] = pooled[n, c, k]
    return out
