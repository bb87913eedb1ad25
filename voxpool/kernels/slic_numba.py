"""SLIC on the CPU: voxels choose among the 27 centres around their grid cell, centres move to the means.

Determinism: the result is bit-equal from run to run, for any number of threads and on any IEEE 754 machine.
Scores are evaluated per voxel in a fixed order without `fastmath`. The sums behind the means are sums of
integers (voxel indices) and of multiples of 2^-16 (the features) in float64: they are exact, so their order
is free. Threads are Python threads around kernels that release the GIL: unlike an OpenMP or work-queue pool
they survive a fork and may be entered from several threads at once.
"""

# Kernels take flat arrays, as many as they need.
# ruff: noqa: PLR0912, PLR0913, PLR0917

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels import threads
from voxpool.kernels.cells_numba import cell_counter
from voxpool.kernels.connectivity_numba import connect
from voxpool.kernels.nearest_numba import WIDTH, nearest
from voxpool.kernels.slic_rules import FEATURE_STEP, MAX_VALUE, check_usable, percentile_ranks, percentile_stride

__all__ = ["assign", "cell_counter", "connect", "scale"]


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _count_layer(inside: Any, edges_z: Any, edges_y: Any, edges_x: Any, counts: Any, layer: Any) -> Any:
    """Count the mask voxels of every cell in one layer of the grid."""
    ny, nx = edges_y.size - 1, edges_x.size - 1
    for z in range(edges_z[layer], edges_z[layer + 1]):
        for cy in range(ny):
            for y in range(edges_y[cy], edges_y[cy + 1]):
                for cx in range(nx):
                    n = 0
                    for x in range(edges_x[cx], edges_x[cx + 1]):
                        n += inside[z, y, x]
                    counts[(layer * ny + cy) * nx + cx] += n


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _pack_layer(
    features: Any,
    inside: Any,
    edges_z: Any,
    edges_y: Any,
    edges_x: Any,
    starts: Any,
    offsets: Any,
    packed: Any,
    sums: Any,
    layer: Any,
) -> Any:
    """Lay the mask voxels of one layer out cell by cell, and add them to the sums of their own cell."""
    channels = features.shape[0]
    ny, nx = edges_y.size - 1, edges_x.size - 1
    for cy in range(ny):
        for cx in range(nx):
            k = (layer * ny + cy) * nx + cx
            i = starts[k]
            for z in range(edges_z[layer], edges_z[layer + 1]):
                for y in range(edges_y[cy], edges_y[cy + 1]):
                    for x in range(edges_x[cx], edges_x[cx + 1]):
                        if inside[z, y, x]:
                            offsets[0, i] = z - edges_z[layer]
                            offsets[1, i] = y - edges_y[cy]
                            offsets[2, i] = x - edges_x[cx]
                            sums[k, 0] += z
                            sums[k, 1] += y
                            sums[k, 2] += x
                            sums[k, 3] += 1
                            for c in range(channels):
                                packed[c, i] = features[c, z, y, x]
                                sums[k, 4 + c] += packed[c, i]
                            i += 1


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _unpack_layer(
    inside: Any, edges_z: Any, edges_y: Any, edges_x: Any, starts: Any, chosen: Any, segments: Any, layer: Any
) -> Any:
    """Write the chosen centres of one layer back to where its voxels are."""
    ny, nx = edges_y.size - 1, edges_x.size - 1
    for cy in range(ny):
        for cx in range(nx):
            i = starts[(layer * ny + cy) * nx + cx]
            for z in range(edges_z[layer], edges_z[layer + 1]):
                for y in range(edges_y[cy], edges_y[cy + 1]):
                    for x in range(edges_x[cx], edges_x[cx + 1]):
                        if inside[z, y, x]:
                            segments[z, y, x] = chosen[i]
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
        row[4 + c] = np.float32(-2.0 * weights[3] * centres[k, 3 + c])
    row[0] = np.float32(norm)


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _assign_layer(
    offsets: Any,
    packed: Any,
    edges_z: Any,
    edges_y: Any,
    edges_x: Any,
    starts: Any,
    centres: Any,
    weights: Any,
    chosen: Any,
    sums: Any,
    layer: Any,
    channels: Any,
) -> Any:
    """Assign the voxels of one layer of cells and add them to the sums of the chosen centres."""
    nz, ny, nx = edges_z.size - 1, edges_y.size - 1, edges_x.size - 1
    rows = np.empty((27, 4 + packed.shape[0]), np.float32)
    candidates = np.empty(27, np.int32)
    rest = np.empty(WIDTH, np.int32)
    for cy in range(ny):
        for cx in range(nx):
            cell = (layer * ny + cy) * nx + cx
            start, stop = starts[cell], starts[cell + 1]
            if start == stop:
                continue
            origin = (edges_z[layer], edges_y[cy], edges_x[cx])
            found = 0
            for gz in range(max(0, layer - 1), min(nz, layer + 2)):
                for gy in range(max(0, cy - 1), min(ny, cy + 2)):
                    for gx in range(max(0, cx - 1), min(nx, cx + 2)):
                        k = (gz * ny + gy) * nx + gx
                        if starts[k + 1] > starts[k]:
                            candidates[found] = k
                            _score(k, centres, origin, weights, rows[found])
                            found += 1
            near = (rows.ctypes.data, candidates.ctypes.data, found, cell)
            for i in range(start, stop, WIDTH):
                place = offsets.ctypes.data + i * offsets.itemsize, offsets.strides[0]
                values = packed.ctypes.data + i * packed.itemsize, packed.strides[0]
                if i + WIDTH <= stop:
                    nearest(offsets, (*place, *values, *near, chosen.ctypes.data + i * chosen.itemsize), channels)
                else:
                    nearest(offsets, (*place, *values, *near, rest.ctypes.data), channels)
                    for j in range(i, stop):
                        chosen[j] = rest[j - i]
            for i in range(start, stop):
                k = chosen[i]
                sums[k, 0] += origin[0] + offsets[0, i]
                sums[k, 1] += origin[1] + offsets[1, i]
                sums[k, 2] += origin[2] + offsets[2, i]
                sums[k, 3] += 1
                for c in range(packed.shape[0]):
                    sums[k, 4 + c] += packed[c, i]


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
    counts = np.zeros(cells, np.int64)
    sums = np.zeros((cells, 4 + channels))
    # A layer adds to the centres of its own and of the two neighbouring layers only, so three slots in turn
    # keep layers that run at the same time out of each other's memory.
    slots = np.zeros((3, *sums.shape))
    centres = np.zeros((cells, 3 + channels))
    segments = np.full(inside.shape, -1, np.int32)

    def each_layer(kernel: Callable[[int], Any]) -> None:
        threads.run([partial(kernel, layer) for layer in range(layers)], inside.size)

    each_layer(partial(_count_layer, inside, *grid, counts))
    starts = np.concatenate(([0], np.cumsum(counts)))
    voxels = int(starts[-1])
    # the last voxels are read together with what lies behind them
    offsets = np.zeros((3, voxels + WIDTH), np.int16 if max(inside.shape) < 2**15 else np.int32)
    packed = np.zeros((channels, voxels + WIDTH), np.float32)
    chosen = np.empty(voxels, np.int32)
    each_layer(partial(_pack_layer, features, inside, *grid, starts, offsets, packed, sums))
    _move(centres, sums)

    def assign_layer(layer: int) -> None:
        slot = slots[layer % 3]
        _assign_layer(offsets, packed, *grid, starts, centres, weights, chosen, slot, layer, (0,) * channels)

    for done in range(iterations):
        slots[:] = 0
        each_layer(assign_layer)
        _move(centres, slots.sum(axis=0))
        report(done + 1)
    each_layer(partial(_unpack_layer, inside, *grid, starts, chosen, segments))
    return segments
