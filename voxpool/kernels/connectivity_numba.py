"""Make every segment one face-connected component, and merge the ones that are too small, on the CPU.

Determinism: serial, and in raster order throughout.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0913, PLR0917

from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels.merging_numba import join, merge_components, number_groups


@njit(cache=True, nogil=True, boundscheck=False)
def _runs(segments: Any, out: Any, parent: Any) -> Any:
    """Number the runs of equal ids along the last axis and join those that touch; return their number."""
    depth, height, width = segments.shape
    runs = 0
    for z in range(depth):
        for y in range(height):
            x = 0
            while x < width:
                label = segments[z, y, x]
                if label < 0:
                    out[z, y, x] = -1
                    x += 1
                    continue
                start = x
                parent[runs] = runs
                while x < width and segments[z, y, x] == label:
                    out[z, y, x] = runs
                    # A pair of runs is joined at the first voxel at which they touch.
                    above = np.int64(out[z, y - 1, x]) if y > 0 and segments[z, y - 1, x] == label else -1
                    if above >= 0 and (x == start or out[z, y - 1, x - 1] != above):
                        join(parent, above, runs)
                    above = np.int64(out[z - 1, y, x]) if z > 0 and segments[z - 1, y, x] == label else -1
                    if above >= 0 and (x == start or out[z - 1, y, x - 1] != above):
                        join(parent, above, runs)
                    x += 1
                runs += 1
    return runs


@njit(cache=True, nogil=True, boundscheck=False)
def _renumber(ids: Any, number: Any) -> None:
    for i in range(ids.size):
        if ids[i] >= 0:
            ids[i] = number[ids[i]]


@njit(cache=True, nogil=True, boundscheck=False)
def _measure(components: Any, features: Any, sizes: Any, sums: Any) -> None:
    for i in range(components.size):
        a = components[i]
        if a >= 0:
            sizes[a] += 1
            for c in range(features.shape[0]):
                sums[a, c] += features[c, i]


@njit(cache=True, nogil=True, boundscheck=False)
def _touch(components: Any, small: Any, ends: Any, neighbours: Any) -> None:
    """List the component beyond each face of every small component."""
    depth, height, width = components.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                a = components[z, y, x]
                if a < 0 or not small[a]:
                    continue
                for step in range(6):
                    bz = z + (step == 0) - (step == 1)
                    by = y + (step == 2) - (step == 3)
                    bx = x + (step == 4) - (step == 5)
                    if 0 <= bz < depth and 0 <= by < height and 0 <= bx < width:
                        b = components[bz, by, bx]
                        if b >= 0 and b != a:
                            neighbours[ends[a]] = b
                            ends[a] += 1


def _measure_and_merge(components: np.ndarray, features: np.ndarray, count: int, min_size: float, enough: int) -> int:
    """Merge the components below `min_size`, in place, until `enough` are left; return how many are left."""
    flat = components.reshape(-1)
    sizes = np.zeros(count, np.int64)
    sums = np.zeros((count, len(features)))
    _measure(flat, features.reshape(len(features), -1), sizes, sums)

    def touch(small: np.ndarray, starts: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
        neighbours, ends = np.empty(total, np.int32), starts.copy()
        _touch(components, small, ends, neighbours)
        return neighbours, ends

    number, left = merge_components(sizes, sums, min_size, enough, touch)
    _renumber(flat, number)
    return left


def connect(segments: np.ndarray, features: np.ndarray, min_size: float, most: int) -> tuple[np.ndarray, int]:
    """See `voxpool.kernels.slic_rules.SlicKernels.connect`."""
    components = np.empty_like(segments)
    parent = np.empty(segments.size, np.int32)
    runs = _runs(segments, components, parent)
    number = np.empty(runs, np.int32)
    count = number_groups(parent, runs, number)
    _renumber(components.reshape(-1), number)
    count = _measure_and_merge(components, features, count, float(min_size), 1)
    if count > most:
        mean_size = np.count_nonzero(components >= 0) / most
        count = _measure_and_merge(components, features, count, mean_size, most)
    return components, count
