"""Pooling kernels for the CPU, compiled by numba: one thread owns one (sample, channel) at a time.

Every accumulator belongs to one thread and is filled in voxel order, so results do not depend on the number
of threads. Threads are Python threads around kernels that release the GIL: unlike numba's own pools they
survive a fork and may be entered from several threads at once. Half precision, which numba does not know,
travels as its bits (bfloat16 as uint16, float16 as int16); `_decode` turns these into float32 without loss.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import get_num_threads, njit, types
from numba.extending import overload
from torch import Tensor

# Below this many elements starting threads costs more than they save.
_SERIAL_SIZE = 1 << 17
_PARTS_PER_THREAD = 4


@njit
def _float16_value(bits: Any) -> Any:
    half = np.uint32(bits) & np.uint32(0xFFFF)
    exponent = (half >> 10) & 31
    mantissa = half & 0x3FF
    if exponent == 0:
        # An integer product instead of a shifted denormal: also right where the processor flushes denormals.
        value = np.float32(mantissa) * np.float32(2.0**-24)
    elif exponent == 31:
        value = np.uint32(0x7F800000 | (mantissa << 13)).view(np.float32)
    else:
        value = np.uint32(((exponent + 112) << 23) | (mantissa << 13)).view(np.float32)
    return -value if half >> 15 else value


def _decode(value: Any) -> Any:
    """Return the number that a stored element stands for (compiled code only, see the overload)."""
    raise NotImplementedError


@overload(_decode, inline="always", strict=False)
def _decode_overload(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: np.uint32(value << 16).view(np.float32)
    if value == types.int16:

        def float16(value: Any) -> Any:
            return _float16_value(value)

        return float16
    return lambda value: value


@njit(cache=True, nogil=True, error_model="numpy")
def _max(rows: Any, x: Any, segments: Any, best: Any, values: Any, argmax: Any) -> None:
    """Fill `rows` of the flattened (sample, channel) axis; `best` is scratch for one row each."""
    channels = x.shape[1]
    for row in range(rows[0], rows[1]):
        n = row // channels
        c = row % channels
        where = argmax[n, c]
        where[:] = -1
        for i in range(x.shape[2]):
            k = segments[n, i]
            if k < 0:
                continue
            value = _decode(x[n, c, i])
            # "not <=" lets a NaN in; once best is NaN it differs from itself and nothing replaces it.
            if where[k] < 0 or (not (value <= best[row, k]) and best[row, k] == best[row, k]):
                best[row, k] = value
                where[k] = i
        for k in range(values.shape[2]):
            values[n, c, k] = x[n, c, where[k]] if where[k] >= 0 else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _sum(rows: Any, x: Any, segments: Any, totals: Any) -> None:
    """Add `rows` of the flattened (sample, channel) axis to `totals`, which starts at 0."""
    channels = x.shape[1]
    for row in range(rows[0], rows[1]):
        n = row // channels
        c = row % channels
        for i in range(x.shape[2]):
            k = segments[n, i]
            if k >= 0:
                totals[n, c, k] += _decode(x[n, c, i])


@njit(cache=True, nogil=True)
def _count(samples: Any, segments: Any, counts: Any) -> None:
    """Count the voxels of `samples` into `counts`, which starts at 0."""
    for n in range(samples[0], samples[1]):
        for i in range(segments.shape[1]):
            k = segments[n, i]
            if k >= 0:
                counts[n, k] += 1


@njit(cache=True, nogil=True)
def _unpool(rows: Any, pooled: Any, segments: Any, out: Any) -> None:
    """Fill `rows` of the flattened (sample, channel) axis of `out`."""
    channels = out.shape[1]
    for row in range(rows[0], rows[1]):
        n = row // channels
        c = row % channels
        for i in range(out.shape[2]):
            k = segments[n, i]
            out[n, c, i] = pooled[n, c, k] if k >= 0 else 0


def _in_threads(kernel: Callable[..., None], rows: int, row_size: int, *arrays: np.ndarray) -> None:
    """Call `kernel((first, last), *arrays)` for parts of the rows; numba and torch both limit the threads."""
    threads = min(rows, get_num_threads(), torch.get_num_threads())
    if threads <= 1 or rows * row_size < _SERIAL_SIZE:
        kernel((0, rows), *arrays)
        return
    parts = min(rows, threads * _PARTS_PER_THREAD)
    bounds = [rows * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for part in [pool.submit(kernel, span, *arrays) for span in pairwise(bounds)]:
            part.result()


def _array(tensor: Tensor) -> np.ndarray:
    """View a contiguous CPU tensor as an array; half precision as the integers that `_decode` knows."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    if tensor.dtype == torch.float16:
        return tensor.view(torch.int16).numpy()
    return tensor.numpy()


def segment_max(x: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_max`."""
    samples, channels, size = x.shape
    rows = samples * channels
    values = x.new_empty((samples, channels, num_segments))
    argmax = torch.empty(values.shape, dtype=torch.int64)
    best = np.empty((rows, num_segments), np.float64 if x.dtype == torch.float64 else np.float32)
    _in_threads(_max, rows, size, _array(x), _array(segments), best, _array(values), _array(argmax))
    return values, argmax


def _totals(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    samples, channels, size = x.shape
    totals = torch.zeros((samples, channels, num_segments), dtype=torch.float64)
    _in_threads(_sum, samples * channels, size, _array(x), _array(segments), _array(totals))
    return totals


def segment_sum(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _totals(x, segments, num_segments).to(x.dtype)


def segment_mean(x: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    samples, size = segments.shape
    counts = torch.zeros((samples, num_segments), dtype=torch.int64)
    _in_threads(_count, samples, size, _array(segments), _array(counts))
    means = _totals(x, segments, num_segments) / counts.clamp(min=1).unsqueeze(1)
    return means.to(x.dtype), counts


def unpool(pooled: Tensor, segments: Tensor) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    samples, channels, _ = pooled.shape
    size = segments.shape[1]
    out = pooled.new_empty((samples, channels, size))
    _in_threads(_unpool, samples * channels, size, _array(pooled), _array(segments), _array(out))
    return out
