"""Union-find, and the steps of a round in which small groups of components join others, on the CPU.

Determinism: no result depends on the order in which voxels or groups come.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0917

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, boundscheck=False)
def find(parent: Any, a: Any) -> Any:
    """Return the root of a set, and shorten the way there."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True, nogil=True, boundscheck=False)
def join(parent: Any, a: Any, b: Any) -> Any:
    """Join two sets; the lower number stays the root, so roots are in raster order of their first voxel."""
    a = find(parent, a)
    b = find(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True, boundscheck=False)
def number_groups(parent: Any, start: Any, stop: Any, before: Any, number: Any) -> Any:
    """Give every element of a range the rank of its root among the roots; return how many roots are in the range.

    There are `before` roots before the range, whose ranks are known.
    """
    roots = before
    for i in range(start, stop):
        root = find(parent, i)
        if root == i:
            number[i] = roots
            roots += 1
        else:
            number[i] = number[root]
    return roots - before


@njit(cache=True, nogil=True, boundscheck=False)
def look_around(ids: Any, groups: Any, marked: Any, means: Any, nearest: Any, target: Any, z0: Any, z1: Any) -> None:
    """Look from every voxel of a marked group in a slab at the groups beyond its faces.

    Where target[a] is 0 nothing has been found for a; else it is one more than the group at the distance nearest[a].
    """
    depth, height, width = ids.shape
    for z in range(z0, z1):
        for y in range(height):
            for x in range(width):
                if ids[z, y, x] < 0:
                    continue
                a = groups[ids[z, y, x]]
                if not marked[a]:
                    continue
                last = a
                for step in range(6):
                    bz = z + (step == 0) - (step == 1)
                    by = y + (step == 2) - (step == 3)
                    bx = x + (step == 4) - (step == 5)
                    if not (0 <= bz < depth and 0 <= by < height and 0 <= bx < width) or ids[bz, by, bx] < 0:
                        continue
                    b = groups[ids[bz, by, bx]]
                    if b in (a, last):
                        continue
                    last = b
                    distance = 0.0
                    for c in range(means.shape[1]):
                        d = means[a, c] - means[b, c]
                        distance += d * d
                    near = nearest[a]
                    if target[a] == 0 or distance < near or (distance == near and b + 1 < target[a]):
                        nearest[a] = distance
                        target[a] = b + 1


@njit(cache=True, nogil=True, boundscheck=False)
def nearest_of(nearest: Any, target: Any, marked: Any, chosen: Any) -> None:
    """Of what was found from several slabs, take the nearest group, of equals the lowest; -1 where there is none."""
    for a in range(chosen.size):
        best, at = np.inf, np.int32(0)
        if marked[a]:
            for part in range(target.shape[0]):
                b = target[part, a]
                if b > 0 and (at == 0 or nearest[part, a] < best or (nearest[part, a] == best and b < at)):
                    best, at = nearest[part, a], b
        chosen[a] = at - 1


@njit(cache=True, nogil=True, boundscheck=False)
def join_groups(marked: Any, chosen: Any, sizes: Any, sums: Any, groups: Any, before: Any) -> Any:
    """Join marked groups with the chosen ones; return how many groups there are less.

    Args:
        marked: (K,) which groups join another; read at their roots.
        chosen: (K,) the group that each joins, or -1.
        sizes: (K,) voxels of every group, right at its root; changed.
        sums: (K, C) likewise summed features; changed.
        groups: (K,) the root of every component's group, which is its lowest member; changed.
        before: (K,) a copy of `groups`.
    """
    for a in range(groups.size):
        if marked[a] and chosen[a] >= 0:
            join(groups, np.int64(a), np.int64(chosen[a]))
    joined = 0
    for a in range(groups.size):
        root = find(groups, np.int64(a))
        groups[a] = root
        if before[a] == a and root != a:
            joined += 1
            sizes[root] += sizes[a]
            for c in range(sums.shape[1]):
                sums[root, c] += sums[a, c]
    return joined
