"""A 3D image in memory, with its place in space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxpool.errors import UsageError

from .geometry import Geometry


@dataclass(frozen=True)
class HeaderCodes:
    """What a NIfTI header says about space, bit for bit, so that an output can say the same.

    Attributes:
        version: 1 (float32 geometry) or 2 (float64).
        pixdim: qfac and the three voxel sizes, in the file's unit.
        qform_code: 0 when the quaternion is unused.
        quaternion: quatern_b, _c, _d and qoffset_x, _y, _z.
        sform_code: 0 when the matrix is unused.
        srow: The first three rows of the matrix, row by row.
        xyzt_units: The raw unit byte.
    """

    version: int
    pixdim: tuple[float, ...]
    qform_code: int
    quaternion: tuple[float, ...]
    sform_code: int
    srow: tuple[float, ...]
    xyzt_units: int


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image and its geometry.

    Attributes:
        array: Voxels; its shape is the geometry's.
        geometry: Grid in RAS+ mm.
        header: The source file's codes, None for a volume made in memory.
        path: The source file, None for a volume made in memory.
        notices: What a reader changed or assumed, one sentence each.
        sources: The DICOM files it was read from, one per slice along the last axis; else empty.
    """

    array: np.ndarray
    geometry: Geometry
    header: HeaderCodes | None = None
    path: Path | None = None
    notices: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.array.shape) != self.geometry.shape:
            raise UsageError(f"array has the shape {tuple(self.array.shape)}, its geometry has {self.geometry.shape}")
