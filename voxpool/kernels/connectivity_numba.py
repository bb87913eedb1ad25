"""Make every segment one face-connected component, and merge the ones that are too small (CPU).

Determinism: serial, and in raster order throughout.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0913, PLR0917

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, boundscheck=False)
def _find(parent: Any, a: Any) -> Any:
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True, nogil=True, boundscheck=False)
def _join(parent: Any, a: Any, b: Any) -> Any:
    """Join two sets; the lower number stays the root, so roots are in raster order of their first voxel."""
    a = _find(parent, a)
    b = _find(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


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
                        _join(parent, above, runs)
                    above = np.int64(out[z - 1, y, x]) if z > 0 and segments[z - 1, y, x] == label else -1
                    if above >= 0 and (x == start or out[z - 1, y, x - 1] != above):
                        _join(parent, above, runs)
                    x += 1
                runs += 1
    return runs


@njit(cache=True, nogil=True, boundscheck=False)
def _number(parent: Any, count: Any, number: Any) -> Any:
    """Give every element the rank of its root among the roots; return how many roots there are."""
    roots = 0
    for i in range(count):
        root = _find(parent, i)
        if root == i:
            number[i] = roots
            roots += 1
        else:
            number[i] = number[root]
    return roots


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


@njit(cache=True, nogil=True, boundscheck=False)
def _merge(
    order: Any,
    starts: Any,
    ends: Any,
    neighbours: Any,
    sizes: Any,
    sums: Any,
    parent: Any,
    ring: Any,
    min_size: Any,
    enough: Any,
) -> None:
    """Join small groups with the adjacent group of the nearest mean feature until `enough` groups are left.

    The members of a group form a ring of links; swapping one link of each of two rings makes them one.
    """
    left, channels = sums.shape
    for start in order:
        if left <= enough:
            break
        root = _find(parent, start)
        if sizes[root] >= min_size:
            continue
        target = np.int64(-1)
        nearest = np.inf
        member = start
        while True:
            for i in range(starts[member], ends[member]):
                other = _find(parent, np.int64(neighbours[i]))
                if other in (root, target):
                    continue
                distance = 0.0
                for c in range(channels):
                    d = sums[root, c] / sizes[root] - sums[other, c] / sizes[other]
                    distance += d * d
                if distance < nearest or (distance == nearest and other < target):
                    nearest = distance
                    target = other
            member = np.int64(ring[member])
            if member == start:
                break
        if target < 0:
            continue
        left -= 1
        low, high = min(root, target), max(root, target)
        parent[high] = low
        sizes[low] += sizes[high]
        for c in range(channels):
            sums[low, c] += sums[high, c]
        ring[low], ring[high] = ring[high], ring[low]


def _absorb(components: np.ndarray, features: np.ndarray, count: int, min_size: float, enough: int) -> int:
    """Merge the components below `min_size`, in place, until `enough` are left; return how many are left."""
    flat = components.reshape(-1)
    sizes = np.zeros(count, np.int64)
    sums = np.zeros((count, len(features)))
    _measure(flat, features.reshape(len(features), -1), sizes, sums)
    small = sizes < min_size
    order = np.flatnonzero(small)
    order = order[np.argsort(sizes[order], kind="stable")]
    faces = np.cumsum(np.where(small, 6 * sizes, 0))
    starts = np.concatenate(([0], faces[:-1]))
    ends = starts.copy()
    neighbours = np.empty(faces[-1], np.int32)
    _touch(components, small, ends, neighbours)
    parent = np.arange(count, dtype=np.int32)
    ring = parent.copy()
    _merge(order, starts, ends, neighbours, sizes, sums, parent, ring, float(min_size), enough)
    number = np.empty(count, np.int32)
    left: int = _number(parent, count, number)
    _renumber(flat, number)
    return left


def connect_numba(segments: np.ndarray, features: np.ndarray, min_size: float, most: int) -> tuple[np.ndarray, int]:
    """Split segments into face-connected components, merge small ones and the smallest of too many.

    Small components are taken from the smallest up (equal sizes: by their first voxel in raster order). One
    whose group is still too small joins the adjacent group whose mean feature is nearest (equal: whose first
    voxel comes first); a group without a neighbour inside the mask stays. If more than `most` groups are
    left, the same is done to those below the mean size of `most` groups, until there are only so many.

    Args:
        segments: (D, H, W) int32, negative outside the mask.
        features: (C, D, H, W) float32.
        min_size: Smallest size, in voxels, that is left alone.
        most: Number of groups that is not too many.

    Returns:
        (D, H, W) int32 with ids 0..K-1 in raster order of their first voxel and -1 outside; and K.
    """
    components = np.empty_like(segments)
    parent = np.empty(segments.size, np.int32)
    runs = _runs(segments, components, parent)
    number = np.empty(runs, np.int32)
    count = _number(parent, runs, number)
    _renumber(components.reshape(-1), number)
    count = _absorb(components, features, count, float(min_size), 1)
    if count > most:
        mean_size = np.count_nonzero(components >= 0) / most
        count = _absorb(components, features, count, mean_size, most)
    return components, count
