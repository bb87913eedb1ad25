"""Make every segment one face-connected component, and merge the ones that are too small, on the CPU.

Determinism: serial, and in raster order throughout.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.

from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels.merging_numba import join, merge_round, number_groups


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
def _touch(components: Any, small: Any, first: Any, second: Any) -> Any:
    """List what lies beyond the faces of small components; return how many pairs there are.

    A pair is left out where it repeats the one before it.
    """
    depth, height, width = components.shape
    found = 0
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
                        if b >= 0 and b != a and (found == 0 or first[found - 1] != a or second[found - 1] != b):
                            first[found] = a
                            second[found] = b
                            found += 1
    return found


def _pairs(components: np.ndarray, small: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small components, and a neighbour of each, in raster order and with repetitions; int32."""
    first, second = np.empty((2, 6 * int(sizes[small].sum())), np.int32)
    found = _touch(components, small, first, second)
    return first[:found], second[:found]


def _merge_small(components: np.ndarray, sizes: np.ndarray, sums: np.ndarray, min_size: float) -> np.ndarray:
    """Merge components until no group below `min_size` has a neighbour; the root of each one's group (K,)."""
    first, second = _pairs(components, sizes < min_size, sizes)
    parent = np.arange(len(sizes), dtype=np.int32)
    while first.size and merge_round(first, second, sizes < min_size, sizes, sums, parent):
        pass
    return parent


def _merge_smallest(
    components: np.ndarray, sizes: np.ndarray, sums: np.ndarray, below: float, excess: int
) -> np.ndarray:
    """Merge the smallest components that have a neighbour, `excess` at most; the root of each one's group (K,)."""
    first, second = _pairs(components, sizes < below, sizes)
    candidates = np.unique(first)
    marked = np.zeros(len(sizes), bool)
    marked[candidates[np.argsort(sizes[candidates], kind="stable")[:excess]]] = True
    parent = np.arange(len(sizes), dtype=np.int32)
    merge_round(first, second, marked, sizes, sums, parent)
    return parent


def connect(segments: np.ndarray, features: np.ndarray, min_size: float, most: int) -> tuple[np.ndarray, int]:
    """See `voxpool.kernels.slic_rules.SlicKernels.connect`."""
    components = np.empty_like(segments)
    flat, values = components.reshape(-1), features.reshape(len(features), -1)
    parent = np.empty(segments.size, np.int32)
    parent = parent[: _runs(segments, components, parent)]

    def renumber(parent: np.ndarray) -> int:
        number = np.empty_like(parent)
        count: int = number_groups(parent, len(parent), number)
        _renumber(flat, number)
        return count

    count = renumber(parent)
    sizes, sums = np.zeros(count, np.int64), np.zeros((count, len(features)))
    _measure(flat, values, sizes, sums)
    voxels = int(sizes.sum())
    parent = _merge_small(components, sizes, sums, min_size)
    count = renumber(parent)
    while count > most:
        roots = np.unique(parent)
        sizes, sums = sizes[roots], sums[roots]
        parent = _merge_smallest(components, sizes, sums, voxels / most, count - most)
        before, count = count, renumber(parent)
        if count == before:
            break
    return components, count
