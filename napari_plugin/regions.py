"""The supervoxels of a result as a person edits them: which voxels each has, what it touches, what is like it."""

from collections import deque
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import ndimage

from voxpool.supervoxels import nest_segments

COARSER = (4, 16)
"""How many supervoxels of the finest level make one of the next levels, about."""


class Regions:
    """Supervoxels with an index of their voxels.

    Those without a voxel are left out, and the others numbered anew.

    Args:
        segments: Ids 0..K-1, -1 outside, (S, A, R), int32.
        image: Intensities of the same shape.
        uncertainty: Of each supervoxel, (K,), 0 to 1.
    """

    def __init__(self, segments: np.ndarray, image: np.ndarray, uncertainty: np.ndarray) -> None:
        # the scan's own voxels may be too coarse for a small supervoxel to keep one
        sizes = np.bincount(segments[segments >= 0].reshape(-1), minlength=len(uncertainty))
        kept = np.flatnonzero(sizes)
        numbers = np.full(len(sizes) + 1, -1, np.int32)  # the last is that of no supervoxel
        numbers[kept] = np.arange(len(kept))
        self.segments = np.ascontiguousarray(numbers[segments])
        self.uncertainty = np.asarray(uncertainty, np.float32)[kept]
        self.sizes = sizes[kept]
        flat = self.segments.reshape(-1)
        # ids are below 2^31, so a stable sort of them is a radix sort
        order = np.argsort(flat, kind="stable")
        self._starts = np.searchsorted(flat[order], np.arange(len(self) + 1))
        self._order = order.astype(np.int32 if flat.size < 2**31 else np.int64)
        self._image = image
        inside = flat >= 0
        sums = np.bincount(flat[inside], weights=np.asarray(image, np.float64).reshape(-1)[inside])
        self.means = sums / self.sizes

    def __len__(self) -> int:
        return len(self.uncertainty)

    def voxels(self, ids: Sequence[int]) -> np.ndarray:
        """Flat indices of all voxels of some supervoxels, each once."""
        parts = [self._order[self._starts[number] : self._starts[number + 1]] for number in dict.fromkeys(ids)]
        return np.concatenate(parts) if parts else np.empty(0, self._order.dtype)

    def at(self, index: Sequence[int]) -> int | None:
        """The supervoxel of a voxel; None outside the volume and where there is none."""
        if any(not 0 <= place < size for place, size in zip(index, self.segments.shape, strict=True)):
            return None
        found = int(self.segments[tuple(index)])
        return found if found >= 0 else None

    def family(self, number: int, level: int) -> list[int]:
        """The supervoxels that make the larger one of a level which this one belongs to; level 0 is the finest."""
        if level == 0:
            return [number]
        parents = self._hierarchy[level - 1]
        return [int(each) for each in np.flatnonzero(parents == parents[number])]

    def prepare(self) -> None:
        """Find out all that `family` and `similar` need: seconds, so better in a thread than at the first click."""
        _ = self._hierarchy, self._adjacency

    def similar(self, number: int, tolerance: float) -> list[int]:
        """Supervoxels that this one reaches over neighbours whose brightness differs from its own by less.

        Args:
            number: The supervoxel.
            tolerance: Largest difference of mean brightness, as a share of the spread of all of them.

        Returns:
            Their ids, this one first, then by distance in steps.
        """
        spread = float(self.means.std()) or 1.0
        alike = np.abs(self.means - self.means[number]) <= tolerance * spread
        found, waiting = {number: None}, deque([number])
        while waiting:
            for other in self._neighbours(waiting.popleft()):
                if alike[other] and other not in found:
                    found[other] = None
                    waiting.append(other)
        return list(found)

    def centre(self, number: int) -> tuple[int, ...]:
        """The voxel of a supervoxel that is nearest to its middle."""
        places = np.stack(np.unravel_index(self.voxels([number]), self.segments.shape), axis=1)
        nearest = np.square(places - places.mean(axis=0)).sum(axis=1).argmin()
        return tuple(int(place) for place in places[nearest])

    def by_doubt(self) -> list[int]:
        """All supervoxels, the most doubtful first; of equals the lowest id."""
        return [int(number) for number in np.argsort(-self.uncertainty, kind="stable")]

    def paint(self, values: np.ndarray, outside: float = 0) -> np.ndarray:
        """A volume that shows a value of each supervoxel."""
        return np.append(values, np.asarray(outside, values.dtype))[self.segments]

    def _neighbours(self, number: int) -> np.ndarray:
        starts, others = self._adjacency
        return others[starts[number] : starts[number + 1]]

    @cached_property
    def _adjacency(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the neighbours of each supervoxel begin, and the neighbours."""
        count, inside, found = len(self), self.segments[self._box], []
        for axis in range(inside.ndim):
            low = np.moveaxis(inside, axis, 0)[:-1].reshape(-1)
            high = np.moveaxis(inside, axis, 0)[1:].reshape(-1)
            touch = (low != high) & (low >= 0) & (high >= 0)
            found.append(np.unique(low[touch].astype(np.int64) * count + high[touch]))
        one, other = np.divmod(np.concatenate(found), count)
        # as numbers, not as columns: sorting those would hold Python's lock, and the window with it
        edges = np.unique(np.concatenate([one * count + other, other * count + one]))
        return np.searchsorted(edges, np.arange(count + 1) * count), edges % count

    @cached_property
    def _hierarchy(self) -> tuple[np.ndarray, ...]:
        counts = [max(1, len(self) // share) for share in COARSER]
        return nest_segments(self.segments[self._box], self._image[self._box], counts).parents

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        """The part of the volume that holds all supervoxels."""
        return ndimage.find_objects((self.segments >= 0).view(np.int8))[0]
