"""Make every segment one face-connected component, and merge the ones that are too small (CPU).

Determinism: serial, and in raster order throughout.
"""

# Kernels take flat arrays, as many as they need, and loop where NumPy code would call a function.
# ruff: noqa: PLR0912, PLR0917

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
def _components(segments: Any) -> Any:
    """Number the face-connected components by first voxel in raster order, run by run."""
    depth, height, width = segments.shape
    out = np.full(segments.shape, -1, np.int32)
    parent = np.empty(segments.size, np.int32)
    runs = 0
    for z in range(depth):
        for y in range(height):
            x = 0
            while x < width:
                label = segments[z, y, x]
                if label < 0:
                    x += 1
                    continue
                start = x
                run = runs
                parent[run] = run
                runs += 1
                while x < width and segments[z, y, x] == label:
                    out[z, y, x] = run
                    if y > 0 and segments[z, y - 1, x] == label:
                        above = out[z, y - 1, x]
                        if x == start or out[z, y - 1, x - 1] != above:
                            _join(parent, above, run)
                    if z > 0 and segments[z - 1, y, x] == label:
                        above = out[z - 1, y, x]
                        if x == start or out[z - 1, y, x - 1] != above:
                            _join(parent, above, run)
                    x += 1
    number = np.empty(runs, np.int32)
    count = 0
    for run in range(runs):
        root = _find(parent, run)
        if root == run:
            number[run] = count
            count += 1
        else:
            number[run] = number[root]
    _renumber(out, number)
    return out, count


@njit(cache=True, nogil=True, boundscheck=False)
def _renumber(ids: Any, number: Any) -> Any:
    flat = ids.reshape(-1)
    for i in range(flat.size):
        if flat[i] >= 0:
            flat[i] = number[flat[i]]


@njit(cache=True, nogil=True, boundscheck=False)
def _sums(components: Any, count: Any, features: Any) -> Any:
    channels = features.shape[0]
    sizes = np.zeros(count, np.int64)
    sums = np.zeros((count, channels))
    depth, height, width = components.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                a = components[z, y, x]
                if a >= 0:
                    sizes[a] += 1
                    for c in range(channels):
                        sums[a, c] += features[c, z, y, x]
    return sizes, sums


@njit(cache=True, nogil=True, boundscheck=False)
def _touching(components: Any, sizes: Any, small: Any) -> Any:
    """List the component beyond each face of every small component.

    Returns where in the list each component's neighbours start and end, and the list.
    """
    depth, height, width = components.shape
    voxels = np.empty((sizes[small].sum(), 3), np.int32)
    n = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                a = components[z, y, x]
                if a >= 0 and small[a]:
                    voxels[n, 0], voxels[n, 1], voxels[n, 2] = z, y, x
                    n += 1
    starts = np.zeros(small.size + 1, np.int64)
    for i in range(small.size):
        starts[i + 1] = starts[i] + (6 * sizes[i] if small[i] else 0)
    neighbours = np.full(starts[-1], -1, np.int32)
    used = starts[:-1].copy()
    for i in range(n):
        z, y, x = voxels[i]
        a = components[z, y, x]
        for step in range(6):
            bz = z + (step == 0) - (step == 1)
            by = y + (step == 2) - (step == 3)
            bx = x + (step == 4) - (step == 5)
            if 0 <= bz < depth and 0 <= by < height and 0 <= bx < width:
                b = components[bz, by, bx]
                if b >= 0 and b != a:
                    neighbours[used[a]] = b
                    used[a] += 1
    return starts, used, neighbours


@njit(cache=True, nogil=True, boundscheck=False)
def _merge(
    order: Any, starts: Any, ends: Any, neighbours: Any, sizes: Any, sums: Any, min_size: Any, enough: Any
) -> Any:
    """Join small groups with the adjacent group of the nearest mean feature until `enough` groups are left.

    Returns the group of every component, in the order of their first components, and the number of groups.
    """
    count, channels = sums.shape
    left = count
    parent = np.arange(count).astype(np.int32)
    # Members of a group as a linked ring: joining two groups swaps two links.
    ring = np.arange(count).astype(np.int32)
    for start in order:
        if left <= enough:
            break
        root = _find(parent, start)
        if sizes[root] >= min_size:
            continue
        target = -1
        nearest = np.inf
        member = start
        while True:
            for i in range(starts[member], ends[member]):
                other = _find(parent, neighbours[i])
                if other in (root, target):
                    continue
                distance = 0.0
                for c in range(channels):
                    d = sums[root, c] / sizes[root] - sums[other, c] / sizes[other]
                    distance += d * d
                if distance < nearest or (distance == nearest and other < target):
                    nearest = distance
                    target = other
            member = ring[member]
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
    number = np.empty(count, np.int32)
    groups = 0
    for i in range(count):
        root = _find(parent, i)
        if root == i:
            number[i] = groups
            groups += 1
        else:
            number[i] = number[root]
    return number, left


def _absorb(components: np.ndarray, features: np.ndarray, count: int, min_size: float, enough: int) -> int:
    """Merge the components below `min_size`, in place, until `enough` are left; return how many are left."""
    sizes, sums = _sums(components, count, features)
    small = sizes < min_size
    order = np.flatnonzero(small)
    order = order[np.argsort(sizes[order], kind="stable")]
    starts, ends, neighbours = _touching(components, sizes, small)
    number, left = _merge(order, starts, ends, neighbours, sizes, sums, min_size, enough)
    _renumber(components, number)
    return left


def connect_numba(
    segments: np.ndarray, features: np.ndarray, min_size: float, most: int
) -> tuple[np.ndarray, int]:
    """Split segments into face-connected components, merge small ones and the smallest of too many.

    Small components are taken from the smallest up (equal sizes: by their first voxel in raster order). One
    whose group is still too small joins the adjacent group whose mean feature is nearest (equal: whose first
    voxel comes first); a group without a neighbour inside the mask stays. If more than `most` groups are left,
    the same is done to those below the mean size of `most` groups, until there are only so many.

    Args:
        segments: (D, H, W) int32, negative outside the mask.
        features: (C, D, H, W) float32.
        min_size: Smallest size, in voxels, that is left alone.
        most: Number of groups that is not too many.

    Returns:
        (D, H, W) int32 with ids 0..K-1 in raster order of their first voxel and -1 outside; and K.
    """
    components, count = _components(segments)
    count = _absorb(components, features, count, float(min_size), 1)
    if count > most:
        mean_size = np.count_nonzero(components >= 0) / most
        count = _absorb(components, features, count, mean_size, most)
    return components, count
