"""Union-find, and one round of merging small components, on the CPU.

Determinism: serial; and the result does not depend on the order in which pairs come.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0913, PLR0917

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
def _round(
    first: Any,
    second: Any,
    marked: Any,
    sizes: Any,
    sums: Any,
    parent: Any,
    before: Any,
    means: Any,
    nearest: Any,
    target: Any,
) -> Any:
    """See `merge_round`; the last four arrays are for its own use."""
    count, channels = sums.shape
    for a in range(count):
        nearest[a] = np.inf
        target[a] = -1
        before[a] = parent[a]
        for c in range(channels):
            means[a, c] = sums[a, c] / sizes[a]
    for i in range(first.size):
        a, b = before[first[i]], before[second[i]]
        if a == b or not marked[a]:
            continue
        distance = 0.0
        for c in range(channels):
            d = means[a, c] - means[b, c]
            distance += d * d
        if distance < nearest[a] or (distance == nearest[a] and b < target[a]):
            nearest[a] = distance
            target[a] = b
    for a in range(count):
        if target[a] >= 0:
            join(parent, a, target[a])
    joined = 0
    for a in range(count):
        root = find(parent, a)
        parent[a] = root
        if before[a] == a and root != a:
            joined += 1
            sizes[root] += sizes[a]
            for c in range(channels):
                sums[root, c] += sums[a, c]
    return joined


def merge_round(
    first: np.ndarray, second: np.ndarray, marked: np.ndarray, sizes: np.ndarray, sums: np.ndarray, parent: np.ndarray
) -> int:
    """Join every marked group with the adjacent group of the nearest mean feature, all at once.

    Args:
        first: (P,) int32, components of which those in marked groups look for neighbours.
        second: (P,) int32, a neighbour of each.
        marked: (K,) bool, which groups join another; read at their roots.
        sizes: (K,) int64, voxels of every group, right at its root; changed.
        sums: (K, C) float64, likewise summed features; changed.
        parent: (K,) int32, the root of every component's group, which is its lowest member; changed.

    Returns:
        How many groups there are less than before.
    """
    means, nearest = np.empty_like(sums), np.empty(len(sizes))
    before, target = np.empty_like(parent), np.empty_like(parent)
    joined: int = _round(first, second, marked, sizes, sums, parent, before, means, nearest, target)
    return joined
