"""Pooling as one writes it first with numba: a loop over the voxels, the channels in parallel. For comparison only.

Maps are (C, P) float32, segments (P,) int32 with ids 0..K-1 or -1 (ignored). No NaN rule, no half precision, no
samples: what `voxpool.kernels.pool_numba` does beyond these loops is what the benchmark measures.
"""

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from voxpool.kernels.bandwidth_numba import use_threads_of_torch
from voxpool.kernels.hugepages import advise


@njit(cache=True, parallel=True, error_model="numpy")
def _maxima(x: Any, ids: Any, values: Any, argmax: Any) -> None:
    for c in prange(x.shape[0]):
        values[c] = -np.inf
        argmax[c] = -1
        for i in range(x.shape[1]):
            k = ids[i]
            if k >= 0 and x[c, i] > values[c, k]:
                values[c, k] = x[c, i]
                argmax[c, k] = i
        for k in range(values.shape[1]):
            if argmax[c, k] < 0:
                values[c, k] = 0


@njit(cache=True, parallel=True, error_model="numpy")
def _means(x: Any, ids: Any, values: Any, counts: Any) -> None:
    counts[:] = 0
    for i in range(len(ids)):
        if ids[i] >= 0:
            counts[ids[i]] += 1
    for c in prange(x.shape[0]):
        totals = np.zeros(values.shape[1])
        for i in range(x.shape[1]):
            if ids[i] >= 0:
                totals[ids[i]] += x[c, i]
        for k in range(values.shape[1]):
            values[c, k] = totals[k] / counts[k] if counts[k] else 0


@njit(cache=True, parallel=True)
def _spread_maxima(grad: Any, argmax: Any, out: Any) -> None:
    for c in prange(out.shape[0]):
        out[c] = 0
        for k in range(grad.shape[1]):
            if argmax[c, k] >= 0:
                out[c, argmax[c, k]] = grad[c, k]


@njit(cache=True, parallel=True, error_model="numpy")
def _spread_means(grad: Any, ids: Any, counts: Any, out: Any) -> None:
    for c in prange(out.shape[0]):
        for i in range(out.shape[1]):
            k = ids[i]
            out[c, i] = grad[c, k] / counts[k] if k >= 0 else 0


def segment_max(x: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Maxima (C, K) and their positions (C, K) int64; empty segments give 0 and -1."""
    use_threads_of_torch()
    values = torch.empty((len(x), num_segments))
    argmax = torch.empty((len(x), num_segments), dtype=torch.int64)
    _maxima(x.numpy(), segments.numpy(), values.numpy(), argmax.numpy())
    return values, argmax


def segment_mean(x: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Means (C, K), empty segments 0, and the voxel counts (K,) int64."""
    use_threads_of_torch()
    values = torch.empty((len(x), num_segments))
    counts = torch.empty(num_segments, dtype=torch.int64)
    _means(x.numpy(), segments.numpy(), values.numpy(), counts.numpy())
    return values, counts


def max_gradient(grad: Tensor, argmax: Tensor, size: int) -> Tensor:
    """Gradient (C, size) of the maximum, in fresh memory, advised as ours is."""
    out = advise(torch.empty((len(grad), size)))
    _spread_maxima(grad.numpy(), argmax.numpy(), out.numpy())
    return out


def mean_gradient(grad: Tensor, segments: Tensor, counts: Tensor) -> Tensor:
    """Gradient (C, P) of the mean, in fresh memory, advised as ours is."""
    out = advise(torch.empty((len(grad), len(segments))))
    _spread_means(grad.numpy(), segments.numpy(), counts.numpy(), out.numpy())
    return out
