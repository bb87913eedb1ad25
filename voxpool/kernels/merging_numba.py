"""Union-find, and which small components merge with what: on the CPU for every backend, as it is a chain of decisions.

Determinism: serial, in the order of sizes and then of first voxels.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0913, PLR0917

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, boundscheck=False)
def find(parent: Any, a: Any) -> Any:
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
def number_groups(parent: Any, count: Any, number: Any) -> Any:
    """Give every element the rank of its root among the roots; return how many roots there are."""
    roots = 0
    for i in range(count):
        root = find(parent, i)
        if root == i:
            number[i] = roots
            roots += 1
        else:
            number[i] = number[root]
    return roots


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
        root = find(parent, start)
        if sizes[root] >= min_size:
            continue
        target = np.int64(-1)
        nearest = np.inf
        member = start
        while True:
            for i in range(starts[member], ends[member]):
                other = find(parent, np.int64(neighbours[i]))
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


def merge_components(
    sizes: np.ndarray,
    sums: np.ndarray,
    min_size: float,
    enough: int,
    touch: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, int]:
    """Decide which of the components below `min_size` merge with what, until `enough` are left.

    Args:
        sizes: (K,) int64, voxels of every component; changed.
        sums: (K, C) float64, their summed features; changed.
        min_size: Smallest size, in voxels, that is left alone.
        enough: Number of groups that is not too many.
        touch: Takes which components are small (K,), where the list of each one's neighbours is to start (K,) and the
            length of all lists; returns the lists and the end of each. Neighbours may come in any order and repeat.

    Returns:
        The new number of each component (K,) int32, in the order of their lowest members, and how many there are.
    """
    small = sizes < min_size
    order = np.flatnonzero(small)
    order = order[np.argsort(sizes[order], kind="stable")]
    faces = np.cumsum(np.where(small, 6 * sizes, 0))
    starts = np.concatenate(([0], faces[:-1]))
    neighbours, ends = touch(small, starts, int(faces[-1]))
    parent = np.arange(len(sizes), dtype=np.int32)
    _merge(order, starts, ends, neighbours, sizes, sums, parent, parent.copy(), float(min_size), enough)
    number = np.empty(len(sizes), np.int32)
    return number, int(number_groups(parent, len(sizes), number))
