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
def list_voxels(ids: Any, marked: Any, voxels: Any, slab: Any, ends: Any, start: Any, stop: Any) -> None:
    """List the voxels of marked components in a range, from voxels[start] up to voxels[ends[slab]]."""
    end = start
    for i in range(start, stop):
        if ids[i] >= 0 and marked[ids[i]]:
            voxels[end] = i
            end += 1
    ends[slab] = end


@njit(cache=True, nogil=True, boundscheck=False)
def look_around(
    ids: Any, groups: Any, marked: Any, means: Any, voxels: Any, nearest: Any, target: Any, height: Any, width: Any
) -> None:
    """Look from those of some voxels that are in a marked group at the groups beyond their faces.

    Where target[a] is 0 nothing has been found for a; else it is one more than the group at the distance nearest[a].
    """
    plane = height * width
    for i in voxels:
        a = groups[ids[i]]
        if not marked[a]:
            continue
        x, row = i % width, i // width
        y = row % height
        last = a
        for step in range(6):
            if step < 2:
                j = i - plane if step == 0 else i + plane
                there = 0 <= j < ids.size
            elif step < 4:
                j = i - width if step == 2 else i + width
                there = y > 0 if step == 2 else y < height - 1
            else:
                j = i - 1 if step == 4 else i + 1
                there = x > 0 if step == 4 else x < width - 1
            if not there or ids[j] < 0:
                continue
            b = groups[ids[j]]
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
