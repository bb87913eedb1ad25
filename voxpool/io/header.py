"""What a volume's header promises, whatever its format, and what no header is believed without a look at its file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxpool.errors import InputError, UsageError

from .geometry import Geometry
from .volume import HeaderCodes

# DEFLATE packs at most 1032:1, so a header that claims more than this per byte of file is not true.
_MAX_RATIO = 1100


@dataclass(frozen=True)
class VolumeHeader:
    """What the header of a file promises.

    Attributes:
        path: The file.
        gzipped: Whether the whole file is compressed.
        dims: Axis lengths as in the file, without trailing ones past the third.
        dtype: Type of the stored numbers, with byte order.
        offset: First byte of the voxels in the uncompressed file, for formats that are read as a stream.
        slope: Scale factor, 1 when the file has none.
        inter: Offset to add after scaling.
        geometry: Grid of one volume, in mm.
        codes: The raw fields about space, for NIfTI.
        notices: What was assumed or is unusual, one sentence each.
    """

    path: Path
    gzipped: bool
    dims: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    geometry: Geometry
    codes: HeaderCodes | None
    notices: tuple[str, ...]

    @property
    def unscaled(self) -> bool:
        """Whether the stored numbers are the voxels' values."""
        return self.slope == 1.0 and self.inter == 0.0

    @property
    def volumes(self) -> int:
        """How many 3D volumes the file holds."""
        return math.prod(self.dims[3:])

    def chosen(self, volume: int | None) -> int:
        """The number of the volume to read, from 0.

        Raises:
            InputError: E109, when there are several and none is chosen.
            UsageError: When there is no such volume.
        """
        if self.volumes > 1 and volume is None:
            raise InputError(
                f"{self.path.name}: is {len(self.dims)}-D with {self.volumes} volumes, wanted one 3-D volume; "
                f"choose one: --volume 0 to {self.volumes - 1} (E109)"
            )
        chosen = volume or 0
        if not 0 <= chosen < self.volumes:
            raise UsageError(f"{self.path.name}: volume must be 0 to {self.volumes - 1}, got {chosen}")
        return chosen


def check_file(path: Path) -> None:
    """Checks what can be said of a file without knowing its format.

    Raises:
        InputError: E101, E102, E105 or E134.
    """
    name = path.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{name}: no such file: {path}; check the path (E101)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be opened ({error}); check the path (E134)") from None
    if path.is_dir():
        raise InputError(f"{name}: is a folder, wanted one file; name a file inside it (E105)")
    if not path.is_file():
        raise InputError(f"{name}: is a pipe or device, wanted a file; copy it to disk first (E105)")
    if size == 0:
        raise InputError(f"{name}: is empty (0 bytes); copy it again from its source (E102)")


def starts_as_gzip(path: Path) -> bool:
    """Whether a file is gzip data, whatever its name says.

    Raises:
        InputError: E134, when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error}); check its permissions (E134)") from None


def check_dims(dims: Sequence[int], name: str) -> tuple[int, ...]:
    """Returns the axis lengths without trailing ones past the third.

    Raises:
        InputError: E107 or E108.
    """
    if min(dims, default=0) < 1:
        raise InputError(
            f"{name}: an axis has the length {min(dims, default=0)} (shape {tuple(dims)}), wanted 1 or more; "
            "the file is damaged (E107)"
        )
    if len(dims) < 3:
        raise InputError(
            f"{name}: is {len(dims)}-D with the shape {tuple(dims)}, wanted a 3-D volume; stack its slices (E108)"
        )
    kept = list(dims)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


def check_size(
    path: Path, dims: Sequence[int], itemsize: int, *, offset: int, compressed: bool, max_gb: float, size: int
) -> None:
    """The size rule: nothing is allocated for a header that its file cannot keep.

    Args:
        path: The file.
        dims: Axis lengths.
        itemsize: Bytes per voxel.
        offset: Bytes before the voxels.
        compressed: Whether the voxels are packed.
        max_gb: Largest size of one volume in memory, in 10^9 bytes.
        size: Bytes that there are on disk.

    Raises:
        InputError: E104 or E106.
    """
    wanted = math.prod(dims) * itemsize + offset
    in_memory = math.prod(dims[:3]) * max(itemsize, 4)
    grid = "x".join(str(n) for n in dims)
    if wanted > (size * _MAX_RATIO if compressed else size):
        if not compressed and wanted < 4 * size:
            raise InputError(
                f"{path.name}: ends early ({size} of {wanted} bytes); copy it again from its source (E104)"
            )
        raise InputError(
            f"{path.name}: its header claims {grid} voxels ({wanted / 1e9:.3g} GB), but the file has {size} "
            "bytes; it is cut off or damaged, copy it again (E106)"
        )
    if in_memory > max_gb * 1e9:
        raise InputError(
            f"{path.name}: {grid} voxels need {in_memory / 1e9:.3g} GB, the limit is {max_gb:g} GB; "
            "crop the volume or raise the limit max_gb (E106)"
        )


def unusual(geometry: Geometry) -> list[str]:
    """What is odd about a grid, though it can be used: shear, sizes, long voxels."""
    notices = []
    if geometry.shear_degrees > 0.1:
        notices.append(f"its axes are sheared by {geometry.shear_degrees:.2g} degrees (W202)")
    smallest, largest = min(geometry.spacing), max(geometry.spacing)
    if smallest < 0.05 or largest > 20:
        sizes = " x ".join(f"{s:.3g}" for s in geometry.spacing)
        notices.append(f"its voxels measure {sizes} mm; is the unit right? (W203)")
    if largest > 8 * smallest:
        notices.append(f"its voxels are {largest / smallest:.3g} times longer than wide (W204)")
    return notices
