"""One unit of CPU pooling, compiled: some channels of some voxels, and how the units are joined.

A unit reads maps (M, C', P'), of which it takes the first, and ids (P',), and fills accumulators (V, R, W): V vectors
of W channels for each of R rows. Row 0 takes the ignored voxels (id -1), row 1 the segment `first`, the lowest that
occurs, and so on; where all ids are expected, `first` is None for the vector code, which then has less to compute.
Vector code comes from `vector_numba`; its numbers are addresses and strides in bytes, and the width W is the length of
the tuple `lanes`.

Where M is 2 and both maps are the same one, no order in memory makes the array contiguous. numba then compiles one form
for all orders, where it would compile three forms of (C', P').
"""

from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels.vector_numba import (
    max_block,
    max_voxel,
    stream_block,
    sum_block,
    sum_voxel,
    unpool_block,
    unpool_voxel,
)

_LINE = 64
_ROWS = 16
"""Rows joined at a time: they stay in the first cache while their channels are written one after another."""


@njit(cache=True, nogil=True)
def id_range(ids: Any, found: Any) -> None:
    """Write the lowest and the highest id of ids (P',) other than -1 into found (2,); 0 and -1 where there is none."""
    low, high = np.uint32(0xFFFFFFFF), np.int32(-1)
    for k in ids:
        # as an unsigned number -1 is above all
        low = min(low, np.uint32(k))
        high = max(high, k)
    found[0] = low if high >= 0 else 0
    found[1] = high


@njit(cache=True, nogil=True, error_model="numpy")
def _padded_rest(x: Any, ids: Any, done: int, width: int) -> Any:
    """The voxels that fill no vector, padded by ignored ones."""
    rest = np.zeros((x.shape[0], width), x.dtype)
    rest_ids = np.full(width, -1, np.int32)
    rest[:, : x.shape[1] - done] = x[:, done:]
    rest_ids[: x.shape[1] - done] = ids[done:]
    return rest, rest_ids


@njit(cache=True, nogil=True, error_model="numpy")
def fill_maxima(maps: Any, ids: Any, first: int | None, best: Any, where: Any, lanes: Any) -> None:
    """Maxima of maps[0] (C', P') into best, their positions into where, both (V, R, W); nothing found: -inf and -1."""
    x = maps[0]
    best[:] = -np.inf
    where[:] = -1
    width, item = len(lanes), x.itemsize
    channels, size = x.shape
    maxima, places = best.ctypes.data, where.ctypes.data
    start, stride, step = x.ctypes.data, x.strides[0], x.strides[1]
    first_id = ids.ctypes.data
    if step != item:
        for i in range(size):
            for v in range(best.shape[0]):
                place = start + i * step + v * width * item
                rows = maxima + v * best.strides[0], places + v * where.strides[0]
                max_voxel(x, (place, first_id + 4 * i, first, *rows, i), lanes)
        return
    done = size - size % width
    for i in range(0, done, width):
        numbers = (start + i * item, stride, channels - 1, first_id + 4 * i, first, maxima, places, i)
        max_block(x, numbers, lanes)
    if done < size:
        rest, rest_ids = _padded_rest(x, ids, done, width)
        voxels = rest.ctypes.data, rest.strides[0], channels - 1, rest_ids.ctypes.data
        max_block(x, (*voxels, first, maxima, places, done), lanes)


@njit(cache=True, nogil=True, error_model="numpy")
def fill_totals(maps: Any, ids: Any, first: int | None, totals: Any, lanes: Any) -> None:
    """Sums of maps[0] (C', P') into totals (V, R, W) float64."""
    x = maps[0]
    totals[:] = 0
    width, item = len(lanes), x.itemsize
    channels, size = x.shape
    start, stride, step = x.ctypes.data, x.strides[0], x.strides[1]
    first_id, sums = ids.ctypes.data, totals.ctypes.data
    if step != item:
        for i in range(size):
            for v in range(totals.shape[0]):
                place = start + i * step + v * width * item
                sum_voxel(x, (place, first_id + 4 * i, first, sums + v * totals.strides[0]), lanes)
        return
    done = size - size % width
    for i in range(0, done, width):
        sum_block(x, (start + i * item, stride, channels - 1, first_id + 4 * i, first, sums), lanes)
    if done < size:
        rest, rest_ids = _padded_rest(x, ids, done, width)
        sum_block(x, (rest.ctypes.data, rest.strides[0], channels - 1, rest_ids.ctypes.data, first, sums), lanes)


@njit(cache=True, nogil=True, error_model="numpy")
def join_maxima(best: Any, where: Any, first: int, start: int, low: int, values: Any, argmax: Any) -> None:
    """Join maxima (V, R, W) of the voxels from `start` into values and argmax (C', K') of the segments from `low`.

    They hold the maxima of earlier voxels, or -inf and -1.
    """
    begin, end = max(first, low), min(first + best.shape[1] - 1, low + values.shape[1])
    for block in range(begin, end, _ROWS):
        for c in range(values.shape[0]):
            v, lane = divmod(c, best.shape[2])
            for k in range(block, min(block + _ROWS, end)):
                value, position = values[c, k - low], argmax[c, k - low]
                other, place = best[v, k - first + 1, lane], where[v, k - first + 1, lane]
                if place >= 0 and (position < 0 or not (other <= value or np.isnan(value))):
                    values[c, k - low] = other
                    argmax[c, k - low] = start + place


@njit(cache=True, nogil=True, error_model="numpy")
def join_totals(totals: Any, first: int, low: int, out: Any) -> None:
    """Add totals (V, R, W) to out (C', K') float64 of the segments from `low`."""
    begin, end = max(first, low), min(first + totals.shape[1] - 1, low + out.shape[1])
    for block in range(begin, end, _ROWS):
        for c in range(out.shape[0]):
            v, lane = divmod(c, totals.shape[2])
            for k in range(block, min(block + _ROWS, end)):
                out[c, k - low] += totals[v, k - first + 1, lane]


@njit(cache=True, nogil=True)
def first_voxels(ids: Any, first: Any) -> None:
    """The first voxel of every segment into first (K,), -1 where it is empty."""
    first[:] = -1
    for i in range(len(ids) - 1, -1, -1):
        if ids[i] >= 0:
            first[ids[i]] = i


@njit(cache=True, nogil=True)
def count_voxels(ids: Any, counts: Any) -> None:
    """Voxels of every segment into counts (K + 1,), those with id -1 first."""
    counts[:] = 0
    for k in ids:
        counts[k + 1] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def fill_table(pooled: Any, first: int, table: Any) -> None:
    """Copy pooled (C', K) into table (V, R, W); row 0 is 0."""
    for v in range(table.shape[0]):
        table[v, 0] = 0
        for block in range(1, table.shape[1], _ROWS):
            for lane in range(table.shape[2]):
                for row in range(block, min(block + _ROWS, table.shape[1])):
                    table[v, row, lane] = pooled[v * table.shape[2] + lane, first + row - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def write_voxels(table: Any, ids: Any, first: int | None, bases: Any, outs: Any, lanes: Any) -> None:
    """Write outs[0] (C', P') from table (V, R, W), plus bases[0] (C', P') unless `bases` is None."""
    base, out = None if bases is None else bases[0], outs[0]
    width, item = len(lanes), out.itemsize
    size = out.shape[1]
    start, stride, step = out.ctypes.data, out.strides[0], out.strides[1]
    first_id, rows = ids.ctypes.data, table.ctypes.data
    numbers: Any
    if step != item:
        for i in range(size):
            for v in range(table.shape[0]):
                place = i * step + v * width * item
                numbers = (start + place, first_id + 4 * i, first, rows + v * table.strides[0])
                if base is None:
                    unpool_voxel(out, numbers, lanes)
                else:
                    unpool_voxel(out, (*numbers, base.ctypes.data + place), lanes)
        return
    done = size - size % width
    streams = width * item == _LINE and start % _LINE == 0 and stride % _LINE == 0
    for i in range(0, done, width):
        numbers = (start + i * step, stride, first_id + 4 * i, first, rows)
        if base is not None:
            unpool_block(out, (*numbers, base.ctypes.data + i * step), lanes)
        elif streams:
            stream_block(out, numbers, lanes)
        else:
            unpool_block(out, numbers, lanes)
    if done < size:
        rest = np.zeros((width, width), out.dtype)
        rest_ids = np.full(width, -1, np.int32)
        rest_ids[: size - done] = ids[done:]
        numbers = (rest.ctypes.data, rest.strides[0], rest_ids.ctypes.data, first, rows)
        if base is None:
            unpool_block(out, numbers, lanes)
        else:
            rest_base = np.zeros((width, width), out.dtype)
            rest_base[:, : size - done] = base[:, done:]
            unpool_block(out, (*numbers, rest_base.ctypes.data), lanes)
        out[:, done:] = rest[:, : size - done]


@njit(cache=True, nogil=True)
def scatter_row(pooled: Any, argmax: Any, out: Any) -> None:
    """Write pooled (K,) into out (P',) at argmax (K,), nowhere where that is negative."""
    for k in range(len(pooled)):
        if argmax[k] >= 0:
            out[argmax[k]] = pooled[k]
