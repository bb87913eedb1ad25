"""NIfTI volumes in and out."""

import gzip
import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np

from voxpool.errors import InputError, UsageError

from .atomic import atomic_path
from .geometry import Geometry
from .nifti_header import EXTENSIONS, NiftiInfo, open_stream, read_header
from .nifti_space import places, restore
from .volume import Volume

# Labels that went through a scaled or float file come back within rounding of whole numbers, no further.
_WHOLE = 1e-4
# What may follow the voxels in a gzip stream before it counts as damaged, in bytes.
_MOST_EXTRA = 1 << 26
_INTEGERS = (np.uint8, np.int16, np.int32)


def read_geometry(path: str | os.PathLike[str], *, assume_affine: bool = False, prefer: str | None = None) -> Geometry:
    """Reads where a volume lies, from its header alone.

    Args:
        path: A `.nii` or `.nii.gz` file.
        assume_affine: As `read_volume`.
        prefer: As `read_volume`.

    Raises:
        InputError: As `read_volume`, for what the header shows.
    """
    return read_header(Path(path), assume_affine=assume_affine, prefer=prefer).geometry


def read_volume(
    path: str | os.PathLike[str],
    *,
    assume_affine: bool = False,
    prefer: str | None = None,
    volume: int | None = None,
    nan_to_zero: bool = False,
    max_gb: float = 4.0,
) -> Volume:
    """Reads a 3D image as float32, scaled as its header says.

    Args:
        path: A `.nii` or `.nii.gz` file. Trailing axes of length one are dropped.
        assume_affine: Accept a file that states no position, its first axis pointing left.
        prefer: "sform" or "qform": which one holds where the two disagree.
        volume: Which volume of a 4D file to take, from 0.
        nan_to_zero: Replace NaN and infinite voxels by 0 instead of refusing them.
        max_gb: Largest size in memory, in 10^9 bytes.

    Raises:
        InputError: When the file cannot be used; the sentence names it, what was found and the remedy.
        UsageError: When `prefer` or `volume` is not possible.
    """
    _check_prefer(prefer)
    info = read_header(Path(path), assume_affine=assume_affine, prefer=prefer, max_gb=max_gb)
    raw = _read_voxels(info, volume)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported as infinite below
        scaled = raw if _unscaled(info) else raw.astype(np.float64) * info.slope + info.inter
        array = scaled.astype(np.float32, order="C")
    notices = info.notices
    broken = ~np.isfinite(array)
    if broken.any():
        if not nan_to_zero:
            raise InputError(_broken_voxels(info, broken, remedy=" or read it with nan_to_zero"))
        array[broken] = 0.0
        notices = (*notices, f"{int(broken.sum())} NaN or infinite voxels were set to 0")
    return Volume(array, info.geometry, info.codes, info.path, notices)


def read_labels(
    path: str | os.PathLike[str],
    *,
    allowed: Iterable[int] | None = None,
    assume_affine: bool = False,
    prefer: str | None = None,
    max_gb: float = 4.0,
) -> Volume:
    """Reads a 3D label map as int32.

    Args:
        path: A `.nii` or `.nii.gz` file; whole numbers, however they are stored.
        allowed: The label values that may occur; None for any.
        assume_affine: As `read_volume`.
        prefer: As `read_volume`.
        max_gb: As `read_volume`.

    Raises:
        InputError: When the file cannot be used, holds fractions, or a value that is not allowed (E122).
    """
    _check_prefer(prefer)
    info = read_header(Path(path), assume_affine=assume_affine, prefer=prefer, max_gb=max_gb)
    raw = _read_voxels(info, None)
    if raw.dtype.kind == "f" or not _unscaled(info):
        values = raw.astype(np.float64) * info.slope + info.inter
        broken = ~np.isfinite(values)
        if broken.any():
            raise InputError(_broken_voxels(info, broken))
        raw = np.rint(values)
        fractions = np.abs(values - raw) > _WHOLE
        if fractions.any():
            raise InputError(
                f"{info.path.name}: labels must be whole numbers, found {values[fractions][0]:g} at index "
                f"{_first_index(fractions)} and {int(fractions.sum())} fractions in all; "
                "resample labels with nearest neighbour (E122)"
            )
    limits = np.iinfo(np.int32)
    if raw.min() < limits.min or raw.max() > limits.max:
        raise InputError(f"{info.path.name}: labels up to {raw.max():g} do not fit 32 bits; renumber them (E122)")
    labels = raw.astype(np.int32, order="C")
    if allowed is not None:
        _check_allowed(labels, sorted(set(allowed)), info.path.name)
    return Volume(labels, info.geometry, info.codes, info.path, info.notices)


def write_volume(path: str | os.PathLike[str], array: np.ndarray, like: Volume) -> None:
    """Writes a 3D array on the grid of another volume, atomically.

    The file has the grid, sform, qform, their codes and the unit of `like`, bit for bit where `like` was read
    from a file; no text field or extension is copied, since those can name a patient. Integers and booleans
    are stored in the smallest of uint8, int16 and int32 that holds them, floats as float32, without scaling.

    *Determinism:* the same array gives the same bytes on every run.

    Args:
        path: Where to write: `.nii` or `.nii.gz`.
        array: Voxels, of the shape of `like`.
        like: The volume whose place in space the array has.

    Raises:
        UsageError: When the shape, type or extension does not fit.
        ResourceError: When the disk is full or the folder cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(EXTENSIONS):
        raise UsageError(f"{path.name}: unknown kind of file, wanted {' or '.join(EXTENSIONS)}")
    array = np.asarray(array)
    if array.shape != like.geometry.shape:
        raise UsageError(f"{path.name}: array has the shape {array.shape}, its grid has {like.geometry.shape}")
    stored = array.astype(_stored_dtype(array, path.name), order="F", copy=False)
    header = _new_header(like, stored.dtype)
    block = header.binaryblock + bytes(int(header["vox_offset"]) - len(header.binaryblock))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the gzip header: two runs give identical bytes.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as stream:
                stream.write(block)
                stream.write(stored.tobytes(order="F"))
        else:
            file.write(block)
            file.write(stored.tobytes(order="F"))


def _check_prefer(prefer: str | None) -> None:
    if prefer not in (None, "sform", "qform"):
        raise UsageError(f'prefer must be "sform" or "qform", got {prefer!r}')


def _unscaled(info: NiftiInfo) -> bool:
    return info.slope == 1.0 and info.inter == 0.0


def _read_voxels(info: NiftiInfo, volume: int | None) -> np.ndarray:
    """Returns the stored numbers of one 3D volume, without scaling."""
    count = math.prod(info.dims[3:])
    name = info.path.name
    if count > 1 and volume is None:
        raise InputError(
            f"{name}: is {len(info.dims)}-D with {count} volumes, wanted one 3-D volume; "
            f"choose one with volume=0 to {count - 1} (E109)"
        )
    chosen = volume or 0
    if not 0 <= chosen < count:
        raise UsageError(f"{name}: volume must be 0 to {count - 1}, got {chosen}")
    length = math.prod(info.dims[:3]) * info.dtype.itemsize
    start = info.offset + chosen * length
    try:
        with open_stream(info.path, info.gzipped) as stream:
            stream.seek(start)
            data = stream.read(length)
            if info.gzipped:
                stream.seek(info.offset + count * length)
                _drain(stream, name)
    except EOFError:
        raise InputError(f"{name}: ends early; copy it again from its source (E104)") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{name}: is damaged ({error}); copy it again from its source (E104)") from None
    if len(data) < length:
        raise InputError(
            f"{name}: ends early ({len(data)} of {length} bytes of voxels); copy it again from its source (E104)"
        )
    return np.frombuffer(data, dtype=info.dtype).reshape(info.dims[:3], order="F")


def _drain(stream: IO[bytes], name: str) -> None:
    """Reads on to the end of a gzip stream, where its checksum is compared; damage can make it longer."""
    for _ in range(_MOST_EXTRA >> 20):
        if not stream.read(1 << 20):
            return
    raise InputError(f"{name}: goes on far behind its voxels; it is damaged, copy it again (E104)")


def _broken_voxels(info: NiftiInfo, broken: np.ndarray, remedy: str = "") -> str:
    return (
        f"{info.path.name}: {int(broken.sum())} voxels are NaN or infinite, the first at index "
        f"{_first_index(broken)}; repair the file{remedy} (E111)"
    )


def _first_index(found: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(found)), found.shape))


def _check_allowed(labels: np.ndarray, allowed: list[int], name: str) -> None:
    values, counts = np.unique(labels, return_counts=True)
    unknown = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if int(v) not in allowed]
    if unknown:
        shown = ", ".join(f"{value} ({count} voxels)" for value, count in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise InputError(
            f"{name}: unknown label {shown}{more}, wanted {', '.join(map(str, allowed))}; "
            "correct the labels or name them all (E122)"
        )


def _stored_dtype(array: np.ndarray, name: str) -> Any:
    if array.dtype.kind == "b":
        return np.uint8
    if array.dtype.kind == "f":
        return np.float32
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name}: cannot store {array.dtype}, wanted integers, booleans or floats")
    low, high = int(array.min()), int(array.max())
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    raise UsageError(f"{name}: values {low} to {high} do not fit 32 bits")


def _new_header(like: Volume, dtype: np.dtype) -> Any:
    codes = like.header
    header = nibabel.Nifti2Header() if codes is not None and codes.version == 2 else nibabel.Nifti1Header()
    header.set_data_shape(like.geometry.shape)
    header.set_data_dtype(dtype)
    header["vox_offset"] = len(header.binaryblock) + 4
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    # A source header is kept only while it describes this grid: a volume may have been reoriented since.
    if codes is not None and any(
        place.matches(like.geometry, tolerance_mm=1e-6) for place in places(codes, like.geometry.shape)
    ):
        restore(header, codes)
    else:
        header.set_sform(like.geometry.affine, code=1)
        # A quaternion cannot hold shear, and a qform that disagrees with the sform makes readers disagree.
        header.set_qform(like.geometry.affine, code=1 if like.geometry.shear_degrees < 1e-4 else 0)
        header.set_xyzt_units("mm")
    return header
