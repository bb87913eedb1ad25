"""NIfTI headers: parsed and judged before a single voxel is read."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from voxpool.errors import InputError

from .geometry import Geometry
from .nifti_space import codes_of, place
from .volume import HeaderCodes

EXTENSIONS = (".nii.gz", ".nii")
# DEFLATE packs at most 1032:1, so a header that claims more than this per byte of file is not true.
_MAX_RATIO = 1100


@dataclass(frozen=True)
class NiftiInfo:
    """What the header of a NIfTI file promises.

    Attributes:
        path: The file.
        gzipped: Whether the content is compressed.
        dims: Axis lengths as in the file, without trailing ones past the third.
        dtype: Type of the stored numbers, with byte order.
        offset: First byte of the voxels in the uncompressed file.
        slope: Scale factor, 1 when the file has none.
        inter: Offset to add after scaling.
        geometry: Grid of one volume, in mm.
        codes: The raw fields about space.
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
    codes: HeaderCodes
    notices: tuple[str, ...]


def read_header(
    path: Path, *, assume_affine: bool = False, prefer: str | None = None, max_gb: float = 4.0
) -> NiftiInfo:
    """Reads and checks a header.

    Args:
        path: A `.nii` or `.nii.gz` file.
        assume_affine: Accept a file that states no position (both codes 0), with NIfTI's fallback: first axis
            to the left, grid centred on the origin.
        prefer: "sform" or "qform": which one holds where the two disagree.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is missing, is not NIfTI, or says something that no 3D scan can have.
    """
    gzipped = _sniff(path)
    header, start = _parse(path, gzipped)
    dims = _dims(header, path.name)
    dtype = _dtype(header, path.name)
    offset = _offset(header, start, path.name)
    _check_size(path, gzipped, dims, dtype, offset, max_gb)
    slope, inter = _scaling(header, path.name)
    codes = codes_of(header)
    try:
        geometry, notices = place(codes, (dims[0], dims[1], dims[2]), assume_affine, prefer)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    return NiftiInfo(
        path=path,
        gzipped=gzipped,
        dims=dims,
        dtype=dtype,
        offset=offset,
        slope=slope,
        inter=inter,
        geometry=geometry,
        codes=codes,
        notices=(*notices, *_unusual(geometry)),
    )


def open_stream(path: Path, gzipped: bool) -> IO[bytes]:
    """Opens the uncompressed content for reading."""
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _sniff(path: Path) -> bool:
    """Checks the file itself; returns whether it is gzip data."""
    name = path.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{name}: no such file: {path}; check the path (E101)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be opened ({error}); check the path (E134)") from None
    if path.is_dir():
        raise InputError(f"{name}: is a folder, wanted one NIfTI file; name a file inside it (E105)")
    if not name.lower().endswith(EXTENSIONS):
        raise InputError(
            f"{name}: unknown kind of file {path.suffix!r}, wanted {' or '.join(EXTENSIONS)}; "
            "convert it to NIfTI first (E105)"
        )
    if not path.is_file():
        raise InputError(f"{name}: is a pipe or device, wanted a file; copy it to disk first (E105)")
    if size == 0:
        raise InputError(f"{name}: is empty (0 bytes); copy it again from its source (E102)")
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error}); check its permissions (E134)") from None
    if name.lower().endswith(".gz") and not gzipped:
        raise InputError(f"{name}: is not gzip data; rename it to .nii if it is plain NIfTI (E103)")
    if gzipped and not name.lower().endswith(".gz"):
        raise InputError(f"{name}: is gzip data under the name of plain NIfTI; rename it to .nii.gz (E103)")
    return gzipped


def _parse(path: Path, gzipped: bool) -> tuple[Any, int]:
    """Returns nibabel's header object and its length in the file."""
    name = path.name
    try:
        with open_stream(path, gzipped) as stream:
            block = stream.read(540)
    except (OSError, EOFError, zlib.error):
        raise InputError(
            f"{name}: ends early or is damaged inside its header; copy it again from its source (E104)"
        ) from None
    kinds: dict[tuple[bytes, str], Any] = {
        (length.to_bytes(4, "big" if order == ">" else "little"), order): kind
        for length, kind in ((348, nibabel.Nifti1Header), (540, nibabel.Nifti2Header))
        for order in "<>"
    }
    order, kind = next(((order, kind) for (mark, order), kind in kinds.items() if mark == block[:4]), ("", None))
    if kind is None:
        raise InputError(f"{name}: is not NIfTI data (no header length at its start); convert it (E103)")
    length = 348 if kind is nibabel.Nifti1Header else 540
    if len(block) < length:
        raise InputError(
            f"{name}: ends early, inside its header ({len(block)} of {length} bytes); copy it again (E104)"
        )
    header = kind(block[:length], endianness=order, check=False)
    magic = block[344:347] if length == 348 else block[4:7]
    if magic in (b"ni1", b"ni2"):
        raise InputError(f"{name}: is one half of a .hdr/.img pair; convert it to a single .nii file (E103)")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{name}: has no NIfTI mark (Analyze 7.5?), so left and right are unknown; convert it (E103)")
    return header, length


def _dims(header: Any, name: str) -> tuple[int, ...]:
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise InputError(f"{name}: its header claims {ndim} axes, wanted 3; the file is damaged (E107)")
    dims = [int(n) for n in header["dim"][1 : ndim + 1]]
    if min(dims) < 1:
        raise InputError(
            f"{name}: an axis has the length {min(dims)} (shape {tuple(dims)}), wanted 1 or more; "
            "the file is damaged (E107)"
        )
    if ndim < 3:
        raise InputError(
            f"{name}: is {ndim}-D with the shape {tuple(dims)}, wanted a 3-D volume; stack its slices (E108)"
        )
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    return tuple(dims)


def _dtype(header: Any, name: str) -> np.dtype:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V0")
    if dtype.fields is not None or dtype.kind == "c":
        kind = "complex numbers" if dtype.kind == "c" else "colours (RGB)"
        raise InputError(f"{name}: holds {kind}, wanted one real number per voxel; convert it to grey values (E110)")
    if dtype.itemsize == 0 or dtype.kind not in "iuf":
        raise InputError(f"{name}: unknown voxel type {code}, wanted integers or real numbers; convert it (E110)")
    return dtype


def _offset(header: Any, start: int, name: str) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:  # some writers leave it out; the voxels then follow the header and its extension mark
        return start + 4
    if not math.isfinite(offset) or offset != int(offset) or not start + 4 <= offset < 2**40:
        raise InputError(f"{name}: says that its voxels start at byte {offset:g}; the file is damaged (E104)")
    return int(offset)


def _check_size(path: Path, gzipped: bool, dims: tuple[int, ...], dtype: np.dtype, offset: int, max_gb: float) -> None:
    """The size rule: nothing is allocated for a header that its file cannot keep."""
    wanted = math.prod(dims) * dtype.itemsize + offset
    in_memory = math.prod(dims[:3]) * max(dtype.itemsize, 4)
    size = path.stat().st_size
    grid = "x".join(str(n) for n in dims)
    if wanted > (size * _MAX_RATIO if gzipped else size):
        if not gzipped and wanted < 4 * size:
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


def _scaling(header: Any, name: str) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI: a slope of 0 means that there is no scaling
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(inter):
        raise InputError(f"{name}: scales its voxels by {slope:g} and {inter:g}; repair its header (E110)")
    return slope, inter


def _unusual(geometry: Geometry) -> list[str]:
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
