"""What the backends of SLIC agree on beside their kernels: the intensity scale, and how small components merge."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from voxpool.errors import UsageError

FEATURE_STEP = 2.0**-16
"""Features are multiples of this, so that sums of them are exact in float64 and as integers."""

MAX_VALUE = 1e300
"""Intensities beyond this leave float64 when they are scaled."""

_PERCENTILE_VOXELS = 1 << 20


CellCounter = Callable[[Sequence[Sequence[np.ndarray]]], list[int]]
"""Takes the edges of the cells along each axis, for some grids; returns how many cells of each touch a mask."""


class SlicKernels(Protocol):
    """What every backend offers, on NumPy arrays or on torch tensors on a GPU. All give equal results."""

    def scale(self, channel: Any, inside: Any) -> Any:
        """Scale one channel (D, H, W) by its percentiles inside the mask, to float32 multiples of 2^-16; 0 outside.

        Raises:
            UsageError: If a value inside the mask is NaN, infinite or immense.
        """

    def cell_counter(self, inside: Any) -> CellCounter:
        """Prepare to count the cells that touch a mask (D, H, W)."""

    def assign(
        self,
        features: Any,
        inside: Any,
        edges: Sequence[np.ndarray],
        weights: np.ndarray,
        iterations: int,
        report: Callable[[int], object],
    ) -> Any:
        """Group the voxels inside the mask around the centres of a grid (Achanta et al. 2012, section 3).

        Args:
            features: (C, D, H, W), what `scale` returned.
            inside: (D, H, W) boolean mask.
            edges: For each axis the first index of every grid cell, and the length of the axis at the end.
            weights: (4,) float64: weight of a squared distance of one voxel along each axis, and of a squared
                difference of one unit of each feature.
            iterations: Number of assignments, at least 1.
            report: Called with the number of assignments done; what it raises ends the work.

        Returns:
            (D, H, W) int32: number of the grid cell whose centre a voxel belongs to, -1 outside the mask.
        """

    def connect(self, segments: Any, features: Any, min_size: float, most: int) -> tuple[Any, int]:
        """Split segments into face-connected components, merge small ones and the smallest of too many.

        Every component below `min_size` joins the adjacent one whose mean feature is nearest (equal: whose first voxel
        comes first in raster order), all at the same time; and so do the groups that are still below it, until none
        of them has a neighbour inside the mask. If more than `most` groups are left, those below the mean size of
        `most` groups that have a neighbour join likewise, the smallest (equal: by first voxel) and only as many as are
        too many, until there are only so many or none can join.

        Args:
            segments: (D, H, W) int32, negative outside the mask.
            features: (C, D, H, W), what `scale` returned.
            min_size: Smallest size, in voxels, that is left alone.
            most: Number of groups that is not too many.

        Returns:
            (D, H, W) int32 with ids 0..K-1 in raster order of their first voxel and -1 outside; and K.
        """


def check_usable(unusable: int) -> None:
    """Refuse an image with values that cannot be scaled.

    Raises:
        UsageError: If there are any.
    """
    if unusable:
        raise UsageError(
            f"the image has {unusable} NaN, infinite or immense voxels inside the mask: "
            "replace them, or leave them out of the mask."
        )


def percentile_stride(size: int) -> int:
    """Every how many-th of the values the percentiles are taken from.

    An odd stride does not keep step with the axes, whose lengths are mostly even.
    """
    return size // _PERCENTILE_VOXELS | 1


def percentile_ranks(size: int) -> tuple[int, int]:
    """Ranks of the 1st and 99th percentile among so many sorted values."""
    return round(0.01 * (size - 1)), round(0.99 * (size - 1))
