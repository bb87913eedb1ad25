"""Make every segment one face-connected component, and merge the ones that are too small, on the CPU.

The volume is cut into slabs along its first axis, one for each thread. Determinism: numbers are in raster order, sums
are exact, and merging does not depend on the order of what it reads: any number of slabs gives the same bits.
"""

# Kernels take flat arrays, as many as they need. They leave making arrays to their callers and loop where
# NumPy code would call a function, because both take numba seconds to compile.
# ruff: noqa: PLR0917

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels import threads
from voxpool.kernels.merging_numba import join, join_groups, list_voxels, look_around, nearest_of, number_groups

_MOST_SLABS = 16
_SPARE = 4


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


class _Groups:
    """The components of a volume, which merge into groups.

    Attributes:
        ids: (D, H, W) component of every voxel, -1 outside.
        count: Number of groups that are left.
    """

    def __init__(self, segments: np.ndarray, features: np.ndarray) -> None:
        """Find the components, number them in raster order of their first voxel, and let each be a group."""
        self.ids: np.ndarray = np.empty(segments.shape, np.int32)
        self._flat = self.ids.reshape(-1)
        depth, self._plane = len(segments), segments[0].size
        parts = min(depth, threads.number(), _MOST_SLABS)
        self._slabs: list[tuple[int, int]] = [(depth * i // parts, depth * (i + 1) // parts) for i in range(parts)]
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
        self._sizes, self._sums = sizes.sum(axis=0), sums.sum(axis=0)
        self._inside = int(self._sizes.sum())
        self._groups = np.arange(self.count, dtype=np.int32)

    def _each(self, kernel: Callable[[int, int, int], None]) -> None:
        threads.run([partial(kernel, slab, *ends) for slab, ends in enumerate(self._slabs)], self._flat.size)

    def merge_below(self, limit: float) -> None:
        """Let every group below a size join its nearest neighbour, until none of them has one."""
        marked = self._below(limit)
        voxels = self._voxels(marked)
        while self._join(marked, self._nearest(marked, voxels)):
            marked = self._below(limit)

    def merge_smallest(self, most: int) -> bool:
        """Let the smallest groups join, as many as are more than `most`; whether any did."""
        excess = self.count - most
        below = np.flatnonzero(self._below(self._inside / most))
        below = below[np.argsort(self._sizes[below], kind="stable")]
        # only islands have no neighbour, so that few more than what is too many need to be looked at
        marked, taken = np.zeros(len(self._groups), bool), excess + _SPARE
        while True:
            marked[below[:taken]] = True
            chosen = self._nearest(marked, self._voxels(marked[self._groups]))
            able = below[:taken][chosen[below[:taken]] >= 0]
            if len(able) >= excess or taken >= len(below):
                break
            taken *= 4
        marked[:] = False
        marked[able[:excess]] = True
        return self._join(marked, chosen)

    def renumber(self) -> None:
        """Give every voxel the rank of its group."""
        number = np.empty_like(self._groups)
        number_groups(self._groups, 0, len(number), 0, number)
        self._each(lambda slab, z0, z1: _renumber(self._flat, number, z0 * self._plane, z1 * self._plane))

    def _below(self, limit: float) -> np.ndarray:
        return (self._groups == np.arange(len(self._groups))) & (self._sizes < limit)

    def _voxels(self, marked: np.ndarray) -> list[np.ndarray]:
        """The voxels of marked components, slab by slab."""
        voxels, ends = np.empty(self._flat.size, np.int32), np.zeros(len(self._slabs), np.int64)

        def find(slab: int, z0: int, z1: int) -> None:
            list_voxels(self._flat, marked, voxels, slab, ends, z0 * self._plane, z1 * self._plane)

        self._each(find)
        return [voxels[z0 * self._plane : end] for (z0, _), end in zip(self._slabs, ends, strict=True)]

    def _nearest(self, marked: np.ndarray, voxels: list[np.ndarray]) -> np.ndarray:
        """The adjacent group of nearest mean for every marked group; -1 where there is none."""
        chosen = np.full(len(marked), -1, np.int32)
        if marked.any():
            means = self._sums / self._sizes[:, None]
            # slabs write to rows of their own; where one writes nothing, no memory is taken
            shape = len(self._slabs), len(marked)
            nearest, target = np.zeros(shape), np.zeros(shape, np.int32)
            _, height, width = self.ids.shape

            def look(slab: int, _z0: int, _z1: int) -> None:
                near, whom, listed = nearest[slab], target[slab], voxels[slab]
                look_around(self._flat, self._groups, marked, means, listed, near, whom, height, width)

            self._each(look)
            nearest_of(nearest, target, marked, chosen)
        return chosen

    def _join(self, marked: np.ndarray, chosen: np.ndarray) -> bool:
        before = self._groups.copy()
        fewer: int = join_groups(marked, chosen, self._sizes, self._sums, self._groups, before)
        self.count -= fewer
        return fewer > 0


def connect(segments: np.ndarray, features: np.ndarray, min_size: float, most: int) -> tuple[np.ndarray, int]:
    """See `voxpool.kernels.slic_rules.SlicKernels.connect`."""
    groups = _Groups(segments, features)
    groups.merge_below(min_size)
    while groups.count > most and groups.merge_smallest(most):
        pass
    groups.renumber()
    return groups.ids, groups.count
