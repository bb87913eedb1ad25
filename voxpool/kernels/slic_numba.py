"""SLIC on the CPU: voxels choose among the 27 centres around their grid cell, centres move to the means.

Determinism: the result is bit-equal from run to run, for any number of threads and on any IEEE 754 machine.
Scores are evaluated per voxel in a fixed order without `fastmath`. The sums behind the means are sums of
integers (voxel indices) and of multiples of 2^-16 (the features) in float64: they are exact, so their order
is free. Threads are Python threads around kernels that release the GIL: unlike an OpenMP or work-queue pool
they survive a fork and may be entered from several threads at once.
"""

# Kernels take flat arrays, as many as they need.
# ruff: noqa: PLR0913, PLR0917

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels import threads
from voxpool.kernels.cells_numba import cell_counter
from voxpool.kernels.connectivity_numba import connect
from voxpool.kernels.nearest_numba import MOST, WIDTH, nearest, sum_where
from voxpool.kernels.slic_rules import FEATURE_STEP, MAX_VALUE, check_usable, percentile_ranks, percentile_stride

__all__ = ["assign", "cell_counter", "connect", "scale"]

_SIDE = 10
"""Voxels of a block along an axis at most; cells are cut into blocks that `sum_where` can add up."""

_STEPS = 1 / FEATURE_STEP
"""A feature of 1 as an integer."""


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _ends(edges: Any, cell: Any, parts: Any, part: Any) -> Any:
    """Where a part of a cell begins and ends along one axis."""
    length = edges[cell + 1] - edges[cell]
    return edges[cell] + length * part // parts, edges[cell] + length * (part + 1) // parts


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _place(block: Any, edges_z: Any, edges_y: Any, edges_x: Any, parts: Any) -> Any:
    """Where a block is: the cell's place in the grid, then the ends of the block along each axis."""
    cell, part = divmod(block, parts[0] * parts[1] * parts[2])
    row, cx = divmod(cell, edges_x.size - 1)
    cz, cy = divmod(row, edges_y.size - 1)
    part, bx = divmod(part, parts[2])
    bz, by = divmod(part, parts[1])
    z0, z1 = _ends(edges_z, cz, parts[0], bz)
    y0, y1 = _ends(edges_y, cy, parts[1], by)
    x0, x1 = _ends(edges_x, cx, parts[2], bx)
    return (cz, cy, cx), z0, z1, y0, y1, x0, x1


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _count_blocks(
    inside: Any, edges_z: Any, edges_y: Any, edges_x: Any, parts: Any, counts: Any, first: Any, last: Any
) -> None:
    """Count the mask voxels of every block."""
    for block in range(first, last):
        _, z0, z1, y0, y1, x0, x1 = _place(block, edges_z, edges_y, edges_x, parts)
        n = 0
        for z in range(z0, z1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    n += inside[z, y, x]
        counts[block] = n


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _pack_blocks(
    features: Any,
    inside: Any,
    edges_z: Any,
    edges_y: Any,
    edges_x: Any,
    parts: Any,
    starts: Any,
    places: Any,
    packed: Any,
    sums: Any,
    first: Any,
    last: Any,
) -> None:
    """Lay the mask voxels out block by block, and add them to the sums of their own cell."""
    for block in range(first, last):
        i = starts[block]
        cell = block // (parts[0] * parts[1] * parts[2])
        _, z0, z1, y0, y1, x0, x1 = _place(block, edges_z, edges_y, edges_x, parts)
        for z in range(z0, z1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if inside[z, y, x]:
                        places[i] = (z - z0) << 20 | (y - y0) << 10 | (x - x0)
                        sums[cell, 0] += z
                        sums[cell, 1] += y
                        sums[cell, 2] += x
                        sums[cell, 3] += 1
                        for c in range(features.shape[0]):
                            packed[c, i] = features[c, z, y, x] * _STEPS
                            sums[cell, 4 + c] += features[c, z, y, x]
                        i += 1


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _unpack_blocks(
    inside: Any,
    edges_z: Any,
    edges_y: Any,
    edges_x: Any,
    parts: Any,
    starts: Any,
    chosen: Any,
    segments: Any,
    first: Any,
    last: Any,
) -> None:
    """Write the chosen centres to where the voxels are."""
    ny, nx = edges_y.size - 1, edges_x.size - 1
    for block in range(first, last):
        i = starts[block]
        (cz, cy, cx), z0, z1, y0, y1, x0, x1 = _place(block, edges_z, edges_y, edges_x, parts)
        for z in range(z0, z1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if inside[z, y, x]:
                        near = chosen[i]
                        gz, gy, gx = cz - 1 + near // 9, cy - 1 + near // 3 % 3, cx - 1 + near % 3
                        segments[z, y, x] = (gz * ny + gy) * nx + gx
                        i += 1


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _score(k: Any, centres: Any, origin: Any, weights: Any, row: Any) -> None:
    """Write how centre k scores the voxels of one cell: at the cell's origin, then the slopes along axes and features.

    The squared distance without the terms that do not depend on the centre is affine in the voxel:
    |p - c|^2 - |p|^2 = |c|^2 - 2 c.p, with p relative to the cell's origin so that float32 is precise.
    """
    norm = 0.0
    for axis in range(3):
        near = centres[k, axis] - origin[axis]
        norm += weights[axis] * near * near
        row[1 + axis] = np.float32(-2.0 * weights[axis] * near)
    for c in range(centres.shape[1] - 3):
        norm += weights[3] * centres[k, 3 + c] * centres[k, 3 + c]
        row[4 + c] = np.float32(-2.0 * weights[3] * centres[k, 3 + c] / _STEPS)
    row[0] = np.float32(norm)


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _candidates(
    place: Any, edges_z: Any, edges_y: Any, edges_x: Any, used: Any, centres: Any, weights: Any, rows: Any, names: Any
) -> Any:
    """Score the centres around a cell; a name is the place among 3 x 3 x 3. Returns how many there are."""
    nz, ny, nx = edges_z.size - 1, edges_y.size - 1, edges_x.size - 1
    cz, cy, cx = place
    origin = (edges_z[cz], edges_y[cy], edges_x[cx])
    found = 0
    for name in range(27):
        gz, gy, gx = cz - 1 + name // 9, cy - 1 + name // 3 % 3, cx - 1 + name % 3
        if 0 <= gz < nz and 0 <= gy < ny and 0 <= gx < nx:
            k = (gz * ny + gy) * nx + gx
            if used[k]:
                names[found] = name
                _score(k, centres, origin, weights, rows[found])
                found += 1
    return found


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _assign_blocks(
    places: Any,
    packed: Any,
    edges_z: Any,
    edges_y: Any,
    edges_x: Any,
    parts: Any,
    starts: Any,
    used: Any,
    centres: Any,
    weights: Any,
    chosen: Any,
    sums: Any,
    first: Any,
    last: Any,
    channels: Any,
) -> None:
    """Assign the voxels of some blocks and add them to the sums of the chosen centres."""
    ny, nx = edges_y.size - 1, edges_x.size - 1
    terms = 4 + packed.shape[0]
    rows, names = np.empty((27, terms), np.float32), np.empty(27, np.int32)
    corner = np.empty(3, np.int32)
    picked = np.empty(MOST + WIDTH, np.int32)
    added = np.empty(terms, np.int64)
    cell, found = -1, 0
    for block in range(first, last):
        start, stop = starts[block], starts[block + 1]
        if start == stop:
            continue
        (cz, cy, cx), z0, _, y0, _, x0, _ = _place(block, edges_z, edges_y, edges_x, parts)
        if block // (parts[0] * parts[1] * parts[2]) != cell:
            cell = block // (parts[0] * parts[1] * parts[2])
            found = _candidates((cz, cy, cx), edges_z, edges_y, edges_x, used, centres, weights, rows, names)
        corner[0], corner[1], corner[2] = z0 - edges_z[cz], y0 - edges_y[cy], x0 - edges_x[cx]
        near = (rows.ctypes.data, names.ctypes.data, found)
        where = places.ctypes.data + start * places.itemsize
        what = packed.ctypes.data + start * packed.itemsize
        times = (stop - start + WIDTH - 1) // WIDTH
        for i in range(times):
            ahead = 4 * WIDTH * i
            voxels = (where + ahead, corner.ctypes.data, what + ahead, packed.strides[0])
            nearest((*voxels, *near, picked.ctypes.data + ahead), channels)
        picked[stop - start : times * WIDTH] = 31  # the name of none
        present = 0
        for i in range(stop - start):
            chosen[start + i] = picked[i]
            present |= 1 << picked[i]
        for n in range(found):
            name = names[n]
            if not present >> name & 1:
                continue
            voxels = (where, what, packed.strides[0], times)
            sum_where((picked.ctypes.data, name, *voxels, added.ctypes.data), channels)
            k = ((cz - 1 + name // 9) * ny + cy - 1 + name // 3 % 3) * nx + cx - 1 + name % 3
            sums[k, 0] += z0 * added[0] + added[1]
            sums[k, 1] += y0 * added[0] + added[2]
            sums[k, 2] += x0 * added[0] + added[3]
            sums[k, 3] += added[0]
            for c in range(packed.shape[0]):
                sums[k, 4 + c] += added[4 + c] / _STEPS


def _move(centres: np.ndarray, sums: np.ndarray) -> None:
    """Move every centre that has voxels to their mean; one that lost all of them stays where it was."""
    used = sums[:, 3] > 0
    count = sums[used, 3:4]
    centres[used, :3] = sums[used, :3] / count
    centres[used, 3:] = sums[used, 4:] / count


@njit(cache=True, nogil=True, boundscheck=False)
def _copy_slab(channel: Any, out: Any, z0: Any, z1: Any) -> None:
    """Copy a slab tile by tile, so that either order of axes reads and writes whole cache lines."""
    _, height, width = channel.shape
    for z in range(z0, z1, 16):
        for x in range(0, width, 16):
            for y in range(height):
                for i in range(z, min(z + 16, z1)):
                    for j in range(x, min(x + 16, width)):
                        out[i, y, j] = channel[i, y, j]


@njit(cache=True, nogil=True, boundscheck=False)
def _count_slab(inside: Any, counts: Any, z0: Any, z1: Any) -> None:
    for z in range(z0, z1):
        n = 0
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                n += inside[z, y, x]
        counts[z] = n


@njit(cache=True, nogil=True, boundscheck=False)
def _survey_slab(
    channel: Any, inside: Any, starts: Any, stride: Any, most: Any, sample: Any, facts: Any, z0: Any, z1: Any
) -> None:
    """Take every stride-th value inside the mask; facts[z]: minimum, maximum and the number of unusable values."""
    for z in range(z0, z1):
        number = starts[z]
        due = -(-number // stride) * stride
        low, high, unusable = np.inf, -np.inf, 0
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                if inside[z, y, x]:
                    value = np.float64(channel[z, y, x])
                    if not abs(value) <= most:
                        unusable += 1
                    low = min(low, value)
                    high = max(high, value)
                    if number == due:
                        sample[number // stride] = value
                        due += stride
                    number += 1
        facts[z, 0] = low
        facts[z, 1] = high
        facts[z, 2] = unusable


@njit(cache=True, nogil=True, boundscheck=False)
def _scale_slab(channel: Any, inside: Any, low: Any, span: Any, step: Any, out: Any, z0: Any, z1: Any) -> None:
    for z in range(z0, z1):
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                if inside[z, y, x]:
                    value = (np.float64(channel[z, y, x]) - low) / span
                    out[z, y, x] = np.rint(min(max(value, -1.0), 2.0) / step) * step


def _plain(channel: np.ndarray) -> np.ndarray:
    """The channel in C order and as numbers that numba reads: float32, or else float64."""
    kept = channel.dtype in (np.float32, np.float64) and channel.dtype.isnative
    if kept and channel.flags.c_contiguous:
        return channel
    if not kept and (channel.dtype.kind == "f" or not channel.dtype.isnative):
        channel = channel.astype(np.float64)
    out = np.empty(channel.shape, channel.dtype if kept else np.float64)
    _each_slab(channel.shape, partial(_copy_slab, channel, out))
    return out


def _each_slab(shape: tuple[int, ...], kernel: Callable[[int, int], None]) -> None:
    """Run a kernel on slabs of 16 planes of the first axis."""
    slabs = [(z, min(z + 16, shape[0])) for z in range(0, shape[0], 16)]
    threads.run([partial(kernel, *ends) for ends in slabs], int(np.prod(shape)))


def scale(channel: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """See `voxpool.kernels.slic_rules.SlicKernels.scale`."""
    channel, shape = _plain(channel), channel.shape
    counts = np.zeros(shape[0], np.int64)
    _each_slab(shape, partial(_count_slab, inside, counts))
    ends = np.cumsum(counts)
    size = int(ends[-1])
    stride = percentile_stride(size)
    sample, facts = np.empty(-(-size // stride)), np.empty((shape[0], 3))
    _each_slab(shape, partial(_survey_slab, channel, inside, ends - counts, stride, MAX_VALUE, sample, facts))
    check_usable(int(facts[:, 2].sum()))
    ranks = percentile_ranks(sample.size)
    low, high = np.partition(sample, ranks)[list(ranks)]
    if low == high:
        low, high = facts[:, 0].min(), facts[:, 1].max()
    scaled = np.zeros(shape, np.float32)
    if low < high:
        _each_slab(shape, partial(_scale_slab, channel, inside, low, high - low, FEATURE_STEP, scaled))
    return scaled


def assign(
    features: np.ndarray,
    inside: np.ndarray,
    edges: Sequence[np.ndarray],
    weights: np.ndarray,
    iterations: int,
    report: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """See `voxpool.kernels.slic_rules.SlicKernels.assign`."""
    grid = (edges[0], edges[1], edges[2])
    channels = features.shape[0]
    layers = edges[0].size - 1
    cells = layers * (edges[1].size - 1) * (edges[2].size - 1)
    extents = [int(np.diff(ends).max()) for ends in edges]
    parts = tuple(max(1, -(-extent // _SIDE)) for extent in extents)
    blocks = cells * int(np.prod(parts))
    counts = np.zeros(blocks, np.int64)
    sums = np.zeros((cells, 4 + channels))
    # A layer adds to the centres of its own and of the two neighbouring layers only, so three slots in turn
    # keep layers that run at the same time out of each other's memory.
    slots = np.zeros((3, *sums.shape))
    centres = np.zeros((cells, 3 + channels))
    segments = np.full(inside.shape, -1, np.int32)

    def each_layer(kernel: Callable[[int, int, int], Any]) -> None:
        ends = [blocks // layers * layer for layer in range(layers + 1)]
        threads.run([partial(kernel, layer, *ends[layer : layer + 2]) for layer in range(layers)], inside.size)

    each_layer(lambda _, first, last: _count_blocks(inside, *grid, parts, counts, first, last))
    starts = np.concatenate(([0], np.cumsum(counts)))
    voxels = int(starts[-1])
    # the last voxels are read together with what lies behind them
    places = np.zeros(voxels + WIDTH, np.int32)
    packed = np.zeros((channels, voxels + WIDTH), np.int32)
    chosen = np.empty(voxels, np.uint8)

    def pack(_layer: int, first: int, last: int) -> None:
        _pack_blocks(features, inside, *grid, parts, starts, places, packed, sums, first, last)

    def assign_layer(layer: int, first: int, last: int) -> None:
        slot = slots[layer % 3]
        near = places, packed, *grid, parts, starts, used, centres, weights
        _assign_blocks(*near, chosen, slot, first, last, (0,) * channels)

    each_layer(pack)
    used = sums[:, 3] > 0
    _move(centres, sums)
    for done in range(iterations):
        slots[:] = 0
        each_layer(assign_layer)
        _move(centres, slots.sum(axis=0))
        report(done + 1)
    each_layer(lambda _, first, last: _unpack_blocks(inside, *grid, parts, starts, chosen, segments, first, last))
    return segments
