"""Make every segment one face-connected component and merge the ones that are too small (CPU, serial, deterministic)."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, boundscheck=False)
def _find(parent, a):  # type: ignore[no-untyped-def]
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True, nogil=True, boundscheck=False)
def _join(parent, a, b):  # type: ignore[no-untyped-def]
    """Join two sets; the lower number stays the root, so roots are in raster order of their first voxel."""
    a = _find(parent, a)
    b = _find(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True, boundscheck=False)
def _components(segments):  # type: ignore[no-untyped-def]
    """Number the face-connected components in raster order of their first voxel, by runs along the last axis."""
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
def _renumber(ids, number):  # type: ignore[no-untyped-def]
    flat = ids.reshape(-1)
    for i in range(flat.size):
        if flat[i] >= 0:
            flat[i] = number[flat[i]]


@njit(cache=True, nogil=True, boundscheck=False)
def _sums(components, count, features):  # type: ignore[no-untyped-def]
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
def _touching(components, small):  # type: ignore[no-untyped-def]
    """List, for every small component, the component beyond each of its faces: (first, neighbours), as in CSR."""
    depth, height, width = components.shape
    first = np.zeros(small.size + 1, np.int64)
    neighbours = np.empty(0, np.int32)
    for fill in range(2):
        for z in range(depth):
            for y in range(height):
                for x in range(width):
                    a = components[z, y, x]
                    if a < 0:
                        continue
                    for axis in range(3):
                        if axis == 0:
                            b = components[z - 1, y, x] if z > 0 else -1
                        elif axis == 1:
                            b = components[z, y - 1, x] if y > 0 else -1
                        else:
                            b = components[z, y, x - 1] if x > 0 else -1
                        if b < 0 or a == b:
                            continue
                        if small[a]:
                            if fill:
                                neighbours[first[a]] = b
                            first[a] += 1
                        if small[b]:
                            if fill:
                                neighbours[first[b]] = a
                            first[b] += 1
        # After counting: turn counts into starts. After filling, each start has moved to the next one's: shift back.
        if fill == 0:
            total = 0
            for i in range(small.size):
                n = first[i]
                first[i] = total
                total += n
            first[small.size] = total
            neighbours = np.empty(total, np.int32)
        else:
            for i in range(small.size - 1, 0, -1):
                first[i] = first[i - 1]
            first[0] = 0
    return first, neighbours


@njit(cache=True, nogil=True, boundscheck=False)
def _merge(order, first, neighbours, sizes, sums, min_size):  # type: ignore[no-untyped-def]
    """Join every small group with the adjacent group of the nearest mean feature; returns group numbers 0..n-1."""
    count, channels = sums.shape
    parent = np.arange(count).astype(np.int32)
    # Members of a group as a linked ring: joining two groups swaps two links.
    ring = np.arange(count).astype(np.int32)
    for start in order:
        root = _find(parent, start)
        if sizes[root] >= min_size:
            continue
        target = -1
        nearest = np.inf
        member = start
        while True:
            for i in range(first[member], first[member + 1]):
                other = _find(parent, neighbours[i])
                if other == root or other == target:
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
    return number, groups


def connect_numba(segments: np.ndarray, features: np.ndarray, min_size: float) -> tuple[np.ndarray, int]:
    """Split segments into face-connected components and merge those smaller than `min_size`.

    Small components are taken from the smallest up (equal sizes: by their first voxel in raster order). One whose
    group is still too small joins the adjacent group whose mean feature is nearest (equal: whose first voxel comes
    first), until it is large enough; a group without a neighbour inside the mask stays.

    Args:
        segments: (D, H, W) int32, negative outside the mask.
        features: (C, D, H, W) float32.
        min_size: Smallest size, in voxels, that is left alone.

    Returns:
        (D, H, W) int32 with consecutive ids in raster order of their first voxel and -1 outside; and their number.
    """
    components, count = _components(segments)
    sizes, sums = _sums(components, count, features)
    small = sizes < min_size
    if small.any():
        order = np.flatnonzero(small)
        order = order[np.argsort(sizes[order], kind="stable")]
        first, neighbours = _touching(components, small)
        number, count = _merge(order, first, neighbours, sizes, sums, float(min_size))
        _renumber(components, number)
    return components, count
