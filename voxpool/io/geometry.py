"""Where a voxel grid lies in the body: affine, spacing, orientation and the exact way back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from nibabel.orientations import aff2axcodes, io_orientation

from voxpool.errors import InputError, UsageError

MATCH_VOXELS = 0.1
"""Two grids count as the same when no corner is further apart than this share of the smallest voxel edge."""

# Axes whose volume is below this share of the product of their lengths lie in a plane within rounding.
_FLAT = 1e-6
_FARTHEST_MM = 1e9


@dataclass(frozen=True, eq=False)
class Geometry:
    """A 3D grid of voxels in RAS+ millimetres (x to the right, y to the front, z up).

    Attributes:
        shape: Number of voxels along each array axis.
        affine: (4, 4) float64, voxel index to RAS+ mm; kept as a read-only copy.

    Raises:
        InputError: When the affine holds NaN or is singular, or the shape is not three positive numbers.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"a volume needs three axes of at least one voxel, got the shape {shape}")
        check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, (self.affine + 0.0).tobytes()))

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm, one per array axis."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @cached_property
    def orientation(self) -> str:
        """Where each array axis points, to the nearest body direction: "LAS" is left, anterior, superior."""
        return "".join(aff2axcodes(self.affine))

    @cached_property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres (sheared voxels included)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def obliquity_degrees(self) -> float:
        """Largest angle between an array axis and its body direction, in degrees."""
        axes = np.abs(self.affine[:3, :3]) / self.spacing
        along = [axes[direction, axis] for axis, direction in enumerate(self._directions)]
        return float(np.degrees(np.arccos(np.clip(min(along), 0.0, 1.0))))

    @cached_property
    def shear_degrees(self) -> float:
        """How far the axes are from being at right angles to each other, in degrees."""
        axes = self.affine[:3, :3] / self.spacing
        cosines = np.abs(axes.T @ axes - np.eye(3)).max()
        return float(np.degrees(np.arcsin(np.clip(cosines, 0.0, 1.0))))

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """Reorders and flips axes so that they point closest to right, anterior, superior.

        No voxel changes its value, and none is interpolated.

        Args:
            array: (..., *shape): the last three axes are the grid's.

        Returns:
            A contiguous copy, (..., *ras().shape).
        """
        self._check_shape(array, self.shape)
        flipped = np.flip(array, self._flipped(array.ndim)) if any(self._flips) else array
        return np.array(np.moveaxis(flipped, *self._moves(array.ndim)), order="C")

    def from_ras(self, array: np.ndarray) -> np.ndarray:
        """The exact inverse of `to_ras`.

        Args:
            array: (..., *ras().shape): the last three axes are the RAS grid's.

        Returns:
            A contiguous copy, (..., *shape).
        """
        self._check_shape(array, self.ras().shape)
        source, destination = self._moves(array.ndim)
        moved = np.moveaxis(array, destination, source)
        return np.array(np.flip(moved, self._flipped(array.ndim)) if any(self._flips) else moved, order="C")

    def ras(self) -> "Geometry":
        """The geometry of what `to_ras` returns."""
        # A permutation with flips has whole numbers only: in the product only the origin can be rounded.
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1.0
        shape = [0, 0, 0]
        for axis, (direction, flip) in enumerate(zip(self._directions, self._flips, strict=True)):
            shape[direction] = self.shape[axis]
            to_source[axis, direction] = -1.0 if flip else 1.0
            to_source[axis, 3] = self.shape[axis] - 1 if flip else 0
        return Geometry((shape[0], shape[1], shape[2]), self.affine @ to_source)

    def corners(self) -> np.ndarray:
        """RAS+ mm of the eight corner voxels' centres, (8, 3)."""
        index = np.array(list(product(*((0, n - 1) for n in self.shape))), dtype=np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def distance_mm(self, other: "Geometry") -> float:
        """Largest distance between the same corner voxels of two grids of one shape, in mm."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def matches(self, other: "Geometry", *, tolerance_mm: float | None = None) -> bool:
        """Whether both grids have the same shape and place in space.

        Args:
            other: The grid to compare with.
            tolerance_mm: Largest distance of any corner; by default 0.1 of this grid's smallest voxel edge.
        """
        if self.shape != other.shape:
            return False
        tolerance = MATCH_VOXELS * min(self.spacing) if tolerance_mm is None else tolerance_mm
        return self.distance_mm(other) <= tolerance

    @cached_property
    def _directions(self) -> tuple[int, ...]:
        """For each array axis, which of x, y, z it lies closest to."""
        return tuple(int(row[0]) for row in io_orientation(self.affine))

    @cached_property
    def _flips(self) -> tuple[bool, ...]:
        return tuple(bool(row[1] < 0) for row in io_orientation(self.affine))

    def _flipped(self, ndim: int) -> tuple[int, ...]:
        return tuple(ndim - 3 + axis for axis, flip in enumerate(self._flips) if flip)

    def _moves(self, ndim: int) -> tuple[list[int], list[int]]:
        first = ndim - 3
        return [first, first + 1, first + 2], [first + direction for direction in self._directions]

    @staticmethod
    def _check_shape(array: np.ndarray, wanted: Sequence[int]) -> None:
        if array.ndim < 3 or tuple(array.shape[-3:]) != tuple(wanted):
            raise UsageError(f"array must end in the grid's shape {tuple(wanted)}, got {tuple(array.shape)}")


def check_affine(affine: np.ndarray) -> None:
    """Refuses an affine that places no volume in space.

    Raises:
        InputError: E112, when it is not 4 by 4, holds NaN or infinity, or is singular.
    """
    if affine.shape != (4, 4):
        raise InputError(f"the affine must be 4 by 4, got {affine.shape} (E112)")
    if not np.isfinite(affine).all():
        raise InputError("the affine holds NaN or infinite numbers; write a valid qform or sform (E112)")
    if not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise InputError(f"the affine's last row must be 0 0 0 1, got {affine[3].tolist()} (E112)")
    if (reach := np.abs(affine).max()) > _FARTHEST_MM:
        raise InputError(f"the affine reaches {reach:.3g} mm, no body is that large; correct it (E112)")
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if lengths.min() == 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLAT:
        raise InputError("the affine is singular, its axes span no volume; write a valid qform or sform (E112)")
