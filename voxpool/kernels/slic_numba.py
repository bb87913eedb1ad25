"""SLIC on the CPU: voxels choose among the 27 centres around their grid cell, centres move to their voxels' means.

Determinism: the result is bit-equal from run to run, for any number of threads and on any IEEE 754 machine.
Scores are evaluated per voxel in a fixed order without `fastmath`. The sums behind the means are sums of
integers (voxel indices) and of multiples of 2^-16 (the features) in float64: they are exact, so their order is
free. Threads are Python threads around kernels that release the GIL: unlike an OpenMP or work-queue pool they
survive a fork and may be entered from several threads at once.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import get_num_threads, njit

FEATURE_STEP = 2.0**-16
_CHUNK = 8192


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _sum_cells(features, inside, edges_z, edges_y, edges_x, sums, layer):  # type: ignore[no-untyped-def]
    """Add up indices, features and count of the mask voxels of every cell in one layer of the grid."""
    channels = features.shape[0]
    ny, nx = edges_y.size - 1, edges_x.size - 1
    for cy in range(ny):
        for cx in range(nx):
            k = (layer * ny + cy) * nx + cx
            for z in range(edges_z[layer], edges_z[layer + 1]):
                for y in range(edges_y[cy], edges_y[cy + 1]):
                    for x in range(edges_x[cx], edges_x[cx + 1]):
                        if inside[z, y, x]:
                            sums[k, 0] += z
                            sums[k, 1] += y
                            sums[k, 2] += x
                            sums[k, 3] += 1
                            for c in range(channels):
                                sums[k, 4 + c] += features[c, z, y, x]


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _score(centre, origin, weights, index, feature, best, chosen, k, n):  # type: ignore[no-untyped-def]
    """Offer centre k to the n buffered voxels of a cell.

    The squared distance without the terms that do not depend on the centre is affine in the voxel:
    |p - c|^2 - |p|^2 = |c|^2 - 2 c.p, with p relative to the cell's origin so that float32 is precise.
    """
    channels = feature.shape[0]
    base = 0.0
    c0 = centre[0] - origin[0]
    c1 = centre[1] - origin[1]
    c2 = centre[2] - origin[2]
    base += weights[0] * c0 * c0 + weights[1] * c1 * c1 + weights[2] * c2 * c2
    for c in range(channels):
        base += weights[3] * centre[3 + c] * centre[3 + c]
    b = np.float32(base)
    f0 = np.float32(-2.0 * weights[0] * c0)
    f1 = np.float32(-2.0 * weights[1] * c1)
    f2 = np.float32(-2.0 * weights[2] * c2)
    g0 = np.float32(-2.0 * weights[3] * centre[3])
    if channels == 1:
        for j in range(n):
            s = b + f0 * index[0, j] + f1 * index[1, j] + f2 * index[2, j] + g0 * feature[0, j]
            closer = s < best[j]
            best[j] = s if closer else best[j]
            chosen[j] = k if closer else chosen[j]
    else:
        for j in range(n):
            s = b + f0 * index[0, j] + f1 * index[1, j] + f2 * index[2, j] + g0 * feature[0, j]
            for c in range(1, channels):
                s += np.float32(-2.0 * weights[3] * centre[3 + c]) * feature[c, j]
            closer = s < best[j]
            best[j] = s if closer else best[j]
            chosen[j] = k if closer else chosen[j]


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _assign_layer(  # type: ignore[no-untyped-def]
    features, inside, edges_z, edges_y, edges_x, centres, valid, weights, sums, segments, layer
):
    """Assign the voxels of one layer of cells and add them to the sums of the chosen centres."""
    channels = features.shape[0]
    nz, ny, nx = edges_z.size - 1, edges_y.size - 1, edges_x.size - 1
    capacity = max(_CHUNK, features.shape[3])
    index = np.empty((3, capacity), np.float32)
    feature = np.empty((channels, capacity), np.float32)
    best = np.empty(capacity, np.float32)
    chosen = np.empty(capacity, np.int32)
    candidates = np.empty(27, np.int32)
    origin = np.empty(3, np.int64)
    z0, z1 = edges_z[layer], edges_z[layer + 1]
    for cy in range(ny):
        y0, y1 = edges_y[cy], edges_y[cy + 1]
        for cx in range(nx):
            if not valid[(layer * ny + cy) * nx + cx]:
                continue
            x0, x1 = edges_x[cx], edges_x[cx + 1]
            origin[0], origin[1], origin[2] = z0, y0, x0
            m = 0
            for gz in range(max(0, layer - 1), min(nz, layer + 2)):
                for gy in range(max(0, cy - 1), min(ny, cy + 2)):
                    for gx in range(max(0, cx - 1), min(nx, cx + 2)):
                        k = (gz * ny + gy) * nx + gx
                        if valid[k]:
                            candidates[m] = k
                            m += 1
            n = 0
            rows = (z1 - z0) * (y1 - y0)
            for row in range(rows):
                z = z0 + row // (y1 - y0)
                y = y0 + row % (y1 - y0)
                for x in range(x0, x1):
                    if inside[z, y, x]:
                        index[0, n] = z - z0
                        index[1, n] = y - y0
                        index[2, n] = x - x0
                        for c in range(channels):
                            feature[c, n] = features[c, z, y, x]
                        n += 1
                if row + 1 < rows and n + (x1 - x0) <= capacity:
                    continue
                best[:n] = np.inf
                for i in range(m):
                    k = candidates[i]
                    _score(centres[k], origin, weights, index, feature, best, chosen, k, n)
                for j in range(n):
                    k = chosen[j]
                    dz, dy, dx = index[0, j], index[1, j], index[2, j]
                    sums[k, 0] += z0 + dz
                    sums[k, 1] += y0 + dy
                    sums[k, 2] += x0 + dx
                    sums[k, 3] += 1
                    for c in range(channels):
                        sums[k, 4 + c] += feature[c, j]
                    segments[z0 + int(dz), y0 + int(dy), x0 + int(dx)] = k
                n = 0


def _each(pool: ThreadPoolExecutor | None, function: Callable[[int], Any], items: Iterable[int]) -> None:
    """Run the function on every item; an exception of any of them is raised here."""
    for _ in map(function, items) if pool is None else pool.map(function, items):
        pass


def _means(sums: np.ndarray, centres: np.ndarray) -> None:
    """Move every centre that has voxels to their mean; one that lost all of them stays where it was."""
    used = sums[:, 3] > 0
    count = sums[used, 3:4]
    centres[used, :3] = sums[used, :3] / count
    centres[used, 3:] = sums[used, 4:] / count


def slic_numba(
    features: np.ndarray,
    inside: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    weights: np.ndarray,
    iterations: int,
) -> np.ndarray:
    """Group the voxels inside the mask around the centres of a grid (Achanta et al. 2012, section 3).

    Args:
        features: (C, D, H, W) float32, multiples of `FEATURE_STEP`, small enough that sums stay below 2^53.
        inside: (D, H, W) boolean mask.
        edges: For each axis the first index of every grid cell, and the length of the axis at the end.
        weights: (4,) float64: weight of a squared distance of one voxel along each axis, and of one unit of feature.
        iterations: Number of assignments, at least 1.

    Returns:
        (D, H, W) int32: number of the grid cell whose centre a voxel belongs to, -1 outside the mask.
    """
    edges_z, edges_y, edges_x = edges
    layers = edges_z.size - 1
    cells = layers * (edges_y.size - 1) * (edges_x.size - 1)
    width = 4 + features.shape[0]
    segments = np.full(inside.shape, -1, np.int32)
    centres = np.zeros((cells, width - 1))
    threads = min(get_num_threads(), layers)
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    try:
        sums = np.zeros((cells, width))
        _each(pool, lambda z: _sum_cells(features, inside, *edges, sums, z), range(layers))
        valid = sums[:, 3] > 0
        _means(sums, centres)
        # A layer adds to the centres of its own and its two neighbouring layers only, so three slots in turn keep
        # layers that run at the same time out of each other's memory.
        slots = np.zeros((3, cells, width))

        def assign(z: int) -> None:
            _assign_layer(features, inside, *edges, centres, valid, weights, slots[z % 3], segments, z)

        for _ in range(iterations):
            slots[:] = 0
            _each(pool, assign, range(layers))
            _means(slots.sum(axis=0), centres)
    finally:
        if pool is not None:
            pool.shutdown()
    return segments
