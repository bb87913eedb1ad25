"""NIfTI headers: parsed and judged before a single voxel is read."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError

from voxpool.errors import InputError
from .geometry import Geometry, check_affine
from .volume import HeaderCodes

EXTENSIONS = (".nii.gz", ".nii")
# DEFLATE packs at most 1032:1, so a header that claims more than this per byte of file is not true.
_MAX_RATIO = 1100
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_MISMATCH_MM = 1e-3


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
        assume_affine: Accept a file that states no position (both codes 0), with NIfTI's fallback: first axis to the
            left, grid centred on the origin.
        prefer: "sform" or "qform": which one holds where the two disagree.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is missing, is not NIfTI, or says something that no 3D scan can have.
    """
    name = path.name
    gzipped = _sniff(path)
    header, start = _parse(path, gzipped)
    dims = _dims(header, name)
    dtype = _dtype(header, name)
    offset = _offset(header, start, name)
    _check_size(path, gzipped, dims, dtype, offset, max_gb)
    slope, inter = _scaling(header, name)
    codes = _codes(header)
    try:
        affine, notices = _affine(header, codes, (dims[0], dims[1], dims[2]), assume_affine, prefer)
        geometry = Geometry((dims[0], dims[1], dims[2]), affine)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
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


def _sniff(path: Path) -> bool:
    """Checks the file itself; returns whether it is gzip data."""
    name = path.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{name}: no such file: {path}; check the path (E101)") from None
    except OSError as error:
        raise InputError(
            f"{name}: cannot be opened ({error.strerror}); check the path {path} (E134)"
        ) from None
    if path.is_dir():
        raise InputError(f"{name}: is a folder, wanted one NIfTI file; name a file inside it (E105)")
    if not name.lower().endswith(EXTENSIONS):
        raise InputError(
            f"{name}: unknown kind of file {path.suffix!r}, wanted {' or '.join(EXTENSIONS)}; "
            "convert it to NIfTI first (E105)"
        )
    if size == 0:
        raise InputError(f"{name}: is empty (0 bytes); copy it again from its source (E102)")
    try:
        with path.open("rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions (E134)") from None
    gzipped = magic == b"\x1f\x8b"
    if name.lower().endswith(".gz") and not gzipped:
        raise InputError(f"{name}: is not gzip data; rename it to .nii if it is plain NIfTI (E103)")
    if gzipped and not name.lower().endswith(".gz"):
        raise InputError(f"{name}: is gzip data under the name of plain NIfTI; rename it to .nii.gz (E103)")
    return gzipped


def open_stream(path: Path, gzipped: bool) -> Any:
    """Opens the uncompressed content for reading."""
    return gzip.open(path, "rb") if gzipped else path.open("rb")


def _parse(path: Path, gzipped: bool) -> tuple[Any, int]:
    """Returns nibabel's header object and its length in the file."""
    name = path.name
    try:
        with open_stream(path, gzipped) as stream:
            block = stream.read(540)
    except (OSError, EOFError, zlib.error):
        raise InputError(
            f"{name}: ends early or is damaged inside its header; copy it again (E104)"
        ) from None
    kinds: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    for order, mark in (("little", "<"), ("big", ">")):
        length = int.from_bytes(block[:4], order)  # type: ignore[arg-type]
        if length in kinds:
            break
    else:
        raise InputError(
            f"{name}: is not NIfTI (no header length in its first bytes); wanted a .nii file (E103)"
        )
    if len(block) < length:
        raise InputError(f"{name}: ends early, inside its header ({len(block)} of {length} bytes) (E104)")
    header = kinds[length](block[:length], endianness=mark, check=False)
    magic = bytes(header["magic"].tobytes())
    if magic[:3] in (b"ni1", b"ni2"):
        raise InputError(f"{name}: is one half of a .hdr/.img pair; convert it to a single .nii file (E103)")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise InputError(
            f"{name}: has no NIfTI mark (Analyze 7.5?), so its orientation is unknown; convert it (E103)"
        )
    return header, length


def _dims(header: Any, name: str) -> tuple[int, ...]:
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise InputError(f"{name}: its header claims {ndim} axes, wanted 3; the file is damaged (E107)")
    dims = [int(n) for n in header["dim"][1 : ndim + 1]]
    if min(dims) < 1:
        raise InputError(
            f"{name}: an axis of length {min(dims)} in the shape {tuple(dims)}, wanted 1 or more (E107)"
        )
    if ndim < 3:
        raise InputError(f"{name}: is {ndim}-D with the shape {tuple(dims)}, wanted a 3-D volume (E108)")
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    return tuple(dims)


def _dtype(header: Any, name: str) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except HeaderDataError:
        dtype = None
    if dtype is None or dtype.itemsize == 0:
        code = int(header["datatype"])
        raise InputError(f"{name}: unknown voxel type code {code}, wanted integers or real numbers (E110)")
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "colours (RGB)" if dtype.fields is not None else "complex numbers"
        raise InputError(
            f"{name}: holds {kind}, wanted one real number per voxel; convert it to grey values (E110)"
        )
    return dtype


def _offset(header: Any, start: int, name: str) -> int:
    offset = float(header["vox_offset"])
    # Some writers leave 0 or the header's own length, meaning "right after the header".
    if offset in (0, start):
        return start + 4
    if not math.isfinite(offset) or offset != int(offset) or not start <= offset < 2**40:
        raise InputError(f"{name}: says that its voxels start at byte {offset:g}; the file is damaged (E104)")
    return int(offset)


def _check_size(
    path: Path, gzipped: bool, dims: tuple[int, ...], dtype: np.dtype, offset: int, max_gb: float
) -> None:
    """The size rule: nothing is allocated for a header that its file cannot keep."""
    claimed = math.prod(dims) * dtype.itemsize
    in_memory = math.prod(dims[:3]) * max(dtype.itemsize, 4)
    size = path.stat().st_size
    grid = "x".join(str(n) for n in dims)
    if claimed + offset > (size * _MAX_RATIO if gzipped else size):
        if not gzipped and claimed + offset < 4 * size:
            raise InputError(
                f"{path.name}: ends early ({size} of {claimed + offset} bytes); copy it again from its source (E104)"
            )
        raise InputError(
            f"{path.name}: its header claims {grid} voxels ({claimed / 1e9:.3g} GB), but the file has {size} bytes; "
            "it is cut off or damaged (E106)"
        )
    if in_memory > max_gb * 1e9:
        raise InputError(
            f"{path.name}: {grid} voxels need {in_memory / 1e9:.3g} GB, the limit is {max_gb:g} GB; "
            "crop the volume or raise the limit (E106)"
        )


def _scaling(header: Any, name: str) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI: a slope of 0 means that there is no scaling
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(inter):
        raise InputError(
            f"{name}: scales its voxels by {slope:g} and {inter:g}; the header is damaged (E110)"
        )
    return slope, inter


def _codes(header: Any) -> HeaderCodes:
    quaternion = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    return HeaderCodes(
        version=2 if int(header["sizeof_hdr"]) == 540 else 1,
        pixdim=tuple(float(size) for size in header["pixdim"][:4]),
        qform_code=int(header["qform_code"]),
        quaternion=tuple(float(header[field]) for field in quaternion),
        sform_code=int(header["sform_code"]),
        srow=tuple(float(v) for row in ("srow_x", "srow_y", "srow_z") for v in header[row]),
        xyzt_units=int(header["xyzt_units"]),
    )


def sform_affine(codes: HeaderCodes) -> np.ndarray:
    """The matrix of the sform, in the file's unit."""
    return np.vstack([np.reshape(codes.srow, (3, 4)), [0, 0, 0, 1]])


def qform_affine(codes: HeaderCodes) -> np.ndarray:
    """The matrix of the qform, in the file's unit.

    Raises:
        InputError: E112, when the quaternion is longer than 1 or a voxel size is not positive.
    """
    b, c, d, *origin = codes.quaternion
    sizes = np.array(codes.pixdim[1:])
    if not (np.isfinite(codes.quaternion).all() and np.isfinite(sizes).all() and sizes.min() > 0):
        raise InputError("the qform has NaN or voxel sizes that are not positive; write a valid qform (E112)")
    real_squared = 1.0 - (b * b + c * c + d * d)
    if real_squared < -1e-5:
        raise InputError("the qform's quaternion is longer than 1; write a valid qform (E112)")
    rotation = quat2mat([math.sqrt(max(real_squared, 0.0)), b, c, d])
    handed = -1.0 if codes.pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (sizes * [1.0, 1.0, handed])
    affine[:3, 3] = origin
    return affine


def _affine(
    header: Any, codes: HeaderCodes, shape: tuple[int, int, int], assume_affine: bool, prefer: str | None
) -> tuple[np.ndarray, list[str]]:
    scale = unit_mm(codes)
    if codes.sform_code <= 0 and codes.qform_code <= 0:
        if not assume_affine:
            raise InputError(
                "states no position in space (sform and qform codes are both 0), so left and right are unknown; "
                "write a qform or sform, or read it with assume_affine (E113)"
            )
        sizes = codes.pixdim[1:]
        if not (np.isfinite(sizes).all() and min(sizes) > 0):
            raise InputError(f"its voxel sizes are {sizes}, wanted positive numbers (E115)")
        affine = to_mm(header.get_base_affine(), scale) if header["dim"][0] >= 3 else np.eye(4)
        return affine, ["the file states no position; assumed that the first axis points left"]
    if codes.sform_code <= 0:
        return to_mm(qform_affine(codes), scale), []
    sform = to_mm(sform_affine(codes), scale)
    check_affine(sform)
    if codes.qform_code <= 0:
        return sform, []
    if prefer == "sform":
        return sform, []
    qform = to_mm(qform_affine(codes), scale)
    if prefer == "qform":
        return qform, []
    apart = Geometry(shape, sform).distance_mm(Geometry(shape, qform))
    if apart > _MISMATCH_MM + _quaternion_slack(codes, Geometry(shape, sform)):
        raise InputError(
            f"its sform and qform place it up to {apart:.3g} mm apart; say which one is right with "
            'prefer="sform" or prefer="qform", or repair the header (E114)'
        )
    return sform, []


def to_mm(affine: np.ndarray, scale: float) -> np.ndarray:
    """Scales the three spatial rows of an affine."""
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= scale
    return scaled


def unit_mm(codes: HeaderCodes) -> float:
    """Millimetres per unit of length in the file; an unknown unit is taken as mm."""
    return _MM_PER_UNIT.get(codes.xyzt_units & 7, 1.0)


def _quaternion_slack(codes: HeaderCodes, geometry: Geometry) -> float:
    """How far rounding of the stored quaternion alone can move a corner, in mm.

    The real part is what is left of 1 after the three stored squares. Near a half turn it is small, and float32
    rounding of the squares then turns the volume visibly.
    """
    rounding = 4 * float(np.finfo(np.float32 if codes.version == 1 else np.float64).eps)
    b, c, d = codes.quaternion[:3]
    real = math.sqrt(max(1.0 - (b * b + c * c + d * d), rounding))
    corners = geometry.corners()
    size = float(np.linalg.norm(corners[-1] - corners[0])) + float(np.abs(corners).max())
    return size * rounding / real


def _unusual(geometry: Geometry) -> list[str]:
    notices = []
    if geometry.shear_degrees > 0.1:
        notices.append(f"its axes are sheared by {geometry.shear_degrees:.2g} degrees (W202)")
    smallest, largest = min(geometry.spacing), max(geometry.spacing)
    if smallest < 0.05 or largest > 20:
        sizes = " x ".join(f"{s:g}" for s in geometry.spacing)
        notices.append(f"its voxels measure {sizes} mm; is the unit right? (W203)")
    if largest > 8 * smallest:
        notices.append(f"its voxels are {largest / smallest:.3g} times longer than wide (W204)")
    return notices
