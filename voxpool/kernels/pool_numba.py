"""Pooling kernels for the CPU, compiled by numba: one thread owns one (sample, channel) at a time.

Every accumulator belongs to exactly one thread and is filled in voxel order, so results do not depend on the
number of threads. Half precision, which numba does not know, travels as its bits: bfloat16 as uint16, float16
as int16; `_decode` turns them into float32 without loss.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload
from torch import Tensor

_JIT = {"parallel": True, "nogil": True, "cache": True, "error_model": "numpy"}


@intrinsic
def _bits_to_float32(_context: Any, bits: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@njit
def _float16_value(bits: int) -> float:
    half = np.uint32(bits) & np.uint32(0xFFFF)
    exponent = (half >> np.uint32(10)) & np.uint32(31)
    mantissa = half & np.uint32(0x3FF)
    if exponent == 0:
        # An integer product instead of a shifted denormal: also right where the processor flushes denormals.
        value = np.float32(mantissa) * np.float32(2.0**-24)
    elif exponent == 31:
        value = _bits_to_float32(np.uint32(0x7F800000) | (mantissa << np.uint32(13)))
    else:
        value = _bits_to_float32(((exponent + np.uint32(112)) << np.uint32(23)) | (mantissa << np.uint32(13)))
    return -value if half >> np.uint32(15) else value


def _decode(value: Any) -> Any:
    """Return the number that a stored element stands for (compiled code only, see the overload)."""
    raise NotImplementedError


@overload(_decode, inline="always", strict=False)
def _decode_overload(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: _bits_to_float32(np.uint32(value) << np.uint32(16))
    if value == types.int16:
        return lambda value: _float16_value(value)
    return lambda value: value


@njit(**_JIT)
def _max(x: Any, segments: Any, values: Any, argmax: Any, zeros: Any) -> None:
    samples, channels, size = x.shape
    count = values.shape[2]
    for job in prange(samples * channels):
        n = job // channels
        c = job % channels
        best = np.zeros(count, zeros.dtype)
        where = np.full(count, -1, np.int64)
        for i in range(size):
            k = segments[n, i]
            if k < 0:
                continue
            value = _decode(x[n, c, i])
            # "not <=" lets a NaN in; once best is NaN it differs from itself and nothing replaces it.
            if where[k] < 0 or (not (value <= best[k]) and best[k] == best[k]):
                best[k] = value
                where[k] = i
        for k in range(count):
            i = where[k]
            argmax[n, c, k] = i
            values[n, c, k] = x[n, c, i] if i >= 0 else 0


@njit(**_JIT)
def _sum(x: Any, segments: Any, totals: Any) -> None:
    samples, channels, size = x.shape
    for job in prange(samples * channels):
        n = job // channels
        c = job % channels
        total = np.zeros(totals.shape[2], np.float64)
        for i in range(size):
            k = segments[n, i]
            if k >= 0:
                total[k] += _decode(x[n, c, i])
        totals[n, c, :] = total


@njit(nogil=True, cache=True)
def _count(segments: Any, counts: Any) -> None:
    for n in range(segments.shape[0]):
        for i in range(segments.shape[1]):
            k = segments[n, i]
            if k >= 0:
                counts[n, k] += 1


@njit(**_JIT)
def _unpool(pooled: Any, segments: Any, out: Any) -> None:
    samples, channels, size = out.shape
    for job in prange(samples * channels):
        n = job // channels
        c = job % channels
        for i in range(size):
            k = segments[n, i]
            out[n, c, i] = pooled[n, c, k] if k >= 0 else 0


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
    values = x.new_empty((x.shape[0], x.shape[1], num_segments))
    argmax = torch.empty(values.shape, dtype=torch.int64)
    best = np.zeros(0, np.float64 if x.dtype == torch.float64 else np.float32)
    _max(_array(x), _array(segments), _array(values), _array(argmax), best)
    return values, argmax


def _totals(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    totals = torch.empty((x.shape[0], x.shape[1], num_segments), dtype=torch.float64)
    _sum(_array(x), _array(segments), _array(totals))
    return totals


def segment_sum(x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _totals(x, segments, num_segments).to(x.dtype)


def segment_mean(x: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    counts = torch.zeros((x.shape[0], num_segments), dtype=torch.int64)
    _count(_array(segments), _array(counts))
    means = _totals(x, segments, num_segments) / counts.clamp(min=1).unsqueeze(1)
    return means.to(x.dtype), counts


def unpool(pooled: Tensor, segments: Tensor) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    out = pooled.new_empty((*pooled.shape[:2], segments.shape[1]))
    _unpool(_array(pooled), _array(segments), _array(out))
    return out
