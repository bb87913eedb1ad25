"""Make every segment one face-connected component, and merge the ones that are too small, on the CPU.

The volume is cut into slabs along its first axis, one for each thread. Determinism: numbers are in raster order, sums
are exact, and merging does not depend on the order of what it reads: any number of slabs gives the same bits.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0913, PLR0917

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels import threads
from voxpool.kernels.merging_numba import join, merge_round, number_groups

_MOST_SLABS = 16
_Slabs = list[tuple[int, int]]


@njit(cache=True, nogil=True, boundscheck=False)
def _runs(segments: Any, out: Any, parent: Any, ends: Any, slab: Any, z0: Any, z1: Any) -> None:
    """Number the runs of equal ids along the last axis of a slab and join those that touch.

    Numbers begin at that of the slab's first voxel, so that those of other slabs differ; ends[slab] is behind the last.
    """
    _, height, width = segments.shape
    run = z0 * height * width
    for z in range(z0, z1):
        for y in range(height):
            x = 0
            while x < width:
                label = segments[z, y, x]
                if label < 0:
                    out[z, y, x] = -1
                    x += 1
                    continue
                start = x
                parent[run] = run
                while x < width and segments[z, y, x] == label:
                    out[z, y, x] = run
                    # A pair of runs is joined at the first voxel at which they touch.
                    above = np.int64(out[z, y - 1, x]) if y > 0 and segments[z, y - 1, x] == label else -1
                    if above >= 0 and (x == start or out[z, y - 1, x - 1] != above):
                        join(parent, above, run)
                    above = np.int64(out[z - 1, y, x]) if z > z0 and segments[z - 1, y, x] == label else -1
                    if above >= 0 and (x == start or out[z - 1, y, x - 1] != above):
                        join(parent, above, run)
                    x += 1
                run += 1
    ends[slab] = run


@njit(cache=True, nogil=True, boundscheck=False)
def _join_slabs(segments: Any, out: Any, parent: Any, z: Any) -> None:
    """Join the runs that touch across the plane between z - 1 and z."""
    _, height, width = segments.shape
    for y in range(height):
        for x in range(width):
            if segments[z, y, x] >= 0 and segments[z, y, x] == segments[z - 1, y, x]:
                join(parent, np.int64(out[z, y, x]), np.int64(out[z - 1, y, x]))


@njit(cache=True, nogil=True, boundscheck=False)
def _renumber(ids: Any, number: Any, start: Any, stop: Any) -> None:
    for i in range(start, stop):
        if ids[i] >= 0:
            ids[i] = number[ids[i]]


@njit(cache=True, nogil=True, boundscheck=False)
def _renumber_and_measure(
    ids: Any, number: Any, features: Any, sizes: Any, sums: Any, slab: Any, start: Any, stop: Any
) -> None:
    """Renumber, count the voxels of every id and add up their features."""
    for i in range(start, stop):
        if ids[i] >= 0:
            a = number[ids[i]]
            ids[i] = a
            sizes[slab, a] += 1
            for c in range(features.shape[0]):
                sums[slab, a, c] += features[c, i]


@njit(cache=True, nogil=True, boundscheck=False)
def _touch(components: Any, small: Any, first: Any, second: Any, found: Any, slab: Any, z0: Any, z1: Any) -> None:
    """List what lies beyond the faces of small components in a slab; found[slab] is the number of pairs.

    A pair is left out where it repeats the one before it.
    """
    depth, height, width = components.shape
    n = 0
    last, beyond = np.int32(-1), np.int32(-1)
    for z in range(z0, z1):
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
                        if b >= 0 and b != a and (a != last or b != beyond):
                            first[n] = last = a
                            second[n] = beyond = b
                            n += 1
    found[slab] = n


class _Components:
    """The components of a volume, and what they are called."""

    def __init__(self, segments: np.ndarray, features: np.ndarray) -> None:
        """Find the components and number them in raster order of their first voxel."""
        self.ids = np.empty(segments.shape, np.int32)
        self._flat = self.ids.reshape(-1)
        depth, self._plane = len(segments), segments[0].size
        parts = min(depth, threads.number(), _MOST_SLABS)
        self._slabs: _Slabs = [(depth * i // parts, depth * (i + 1) // parts) for i in range(parts)]
        parent, ends = np.empty(segments.size, np.int32), np.zeros(parts, np.int64)
        self._each(lambda slab, z0, z1: _runs(segments, self.ids, parent, ends, slab, z0, z1))
        for _, z in self._slabs[:-1]:
            _join_slabs(segments, self.ids, parent, z)
        number = np.empty_like(parent)
        self.count = 0
        for (z0, _), end in zip(self._slabs, ends, strict=True):
            self.count += number_groups(parent, z0 * self._plane, end, self.count, number)
        sizes, sums = np.zeros((parts, self.count), np.int64), np.zeros((parts, self.count, len(features)))
        values = features.reshape(len(features), -1)
        self._each(
            lambda slab, z0, z1: _renumber_and_measure(
                self._flat, number, values, sizes, sums, slab, z0 * self._plane, z1 * self._plane
            )
        )
        self.sizes, self.sums = sizes.sum(axis=0), sums.sum(axis=0)

    def _each(self, kernel: Callable[[int, int, int], None]) -> None:
        threads.run([partial(kernel, slab, *ends) for slab, ends in enumerate(self._slabs)], self._flat.size)

    def renumber(self, parent: np.ndarray) -> None:
        """Call every component by the rank of its group's root."""
        number = np.empty_like(parent)
        self.count = number_groups(parent, 0, len(parent), 0, number)
        self._each(lambda slab, z0, z1: _renumber(self._flat, number, z0 * self._plane, z1 * self._plane))
        roots = np.unique(parent)
        self.sizes, self.sums = self.sizes[roots], self.sums[roots]

    def pairs(self, small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Small components, and a neighbour of each, with repetitions; int32."""
        most, parts = 6 * int(self.sizes[small].sum()), len(self._slabs)
        first, second = np.empty((2, parts, most), np.int32)  # where nothing is written, no memory is taken
        found = np.zeros(parts, np.int64)
        self._each(lambda slab, z0, z1: _touch(self.ids, small, first[slab], second[slab], found, slab, z0, z1))
        listed = [(a[:n], b[:n]) for a, b, n in zip(first, second, found, strict=True)]
        return np.concatenate([a for a, _ in listed]), np.concatenate([b for _, b in listed])


def _merge_small(components: _Components, min_size: float) -> None:
    """Merge components until no group below `min_size` has a neighbour."""
    sizes, sums = components.sizes, components.sums
    small = sizes < min_size
    first, second = components.pairs(small)
    parent = np.arange(len(sizes), dtype=np.int32)
    while first.size and merge_round(first, second, small, sizes, sums, parent):
        small = sizes < min_size
        left = small[parent[first]]
        first, second = first[left], second[left]
    components.renumber(parent)


def _merge_smallest(components: _Components, below: float, excess: int) -> None:
    """Merge the smallest components that have a neighbour, `excess` at most."""
    sizes, sums = components.sizes, components.sums
    first, second = components.pairs(sizes < below)
    candidates = np.unique(first)
    marked = np.zeros(len(sizes), bool)
    marked[candidates[np.argsort(sizes[candidates], kind="stable")[:excess]]] = True
    parent = np.arange(len(sizes), dtype=np.int32)
    merge_round(first, second, marked, sizes, sums, parent)
    components.renumber(parent)


def connect(segments: np.ndarray, features: np.ndarray, min_size: float, most: int) -> tuple[np.ndarray, int]:
    """See `voxpool.kernels.slic_rules.SlicKernels.connect`."""
    components = _Components(segments, features)
    voxels = int(components.sizes.sum())
    _merge_small(components, min_size)
    before = components.count + 1
    while most < components.count < before:
        before = components.count
        _merge_smallest(components, voxels / most, before - most)
    return components.ids, components.count
