"""Volumes from files of every format: one way in, whatever the file is called."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxpool.errors import InputError, UsageError

from . import itk, mgh, nifti_header, stream
from .geometry import Geometry
from .header import VolumeHeader, check_file
from .volume import Volume

# Labels that went through a scaled or float file come back within rounding of whole numbers, no further.
_WHOLE = 1e-4


@dataclass(frozen=True)
class Format:
    """How files of one kind are read.

    Attributes:
        name: What the kind is called.
        extensions: What its files end in.
        read_header: Reads and checks all but the voxels.
        read_voxels: Reads the stored numbers of one volume.
        companion: Finds the second file of a volume, if it has one.
    """

    name: str
    extensions: tuple[str, ...]
    read_header: Callable[..., VolumeHeader]
    read_voxels: Callable[[VolumeHeader, int | None], np.ndarray]
    companion: Callable[[Path], Path | None] = lambda _path: None


FORMATS = (
    Format("NIfTI", nifti_header.EXTENSIONS, nifti_header.read_header, stream.read_voxels, nifti_header.companion),
    Format("MGH", mgh.EXTENSIONS, mgh.read_header, stream.read_voxels),
    Format("NRRD and MetaImage", itk.EXTENSIONS, itk.read_header, itk.read_voxels, itk.companion),
)

EXTENSIONS = tuple(ending for each in FORMATS for ending in each.extensions)
"""What the name of a volume's file ends in."""


def stem(name: str) -> str | None:
    """The name of a volume's file without its ending; None if it is none of `EXTENSIONS`."""
    return next((name[: -len(end)] for end in EXTENSIONS if name.lower().endswith(end)), None)


def format_of(path: Path) -> Format:
    """The format that a file's name says.

    Raises:
        InputError: E105, for other names.
    """
    name = path.name.lower()
    found = next((each for each in FORMATS if name.endswith(each.extensions)), None)
    if found is None and name.endswith((".hdr", ".hdr.gz")):
        raise InputError(f"{path.name}: is a header, wanted the file of voxels; name the .img beside it (E105)")
    if found is None:
        raise InputError(
            f"{path.name}: unknown kind of file {path.suffix!r}, wanted {', '.join(EXTENSIONS)}; "
            "convert it to NIfTI first (E105)"
        )
    return found


def files_of(path: Path) -> list[Path]:
    """The files that a volume is in: itself and, where header and voxels lie apart, the other one.

    Raises:
        InputError: If one is missing, empty, or of no known kind.
    """
    check_file(path)
    beside = format_of(path).companion(path)
    return [path] if beside is None else [path, beside]


def read_geometry(path: str | os.PathLike[str], *, assume_affine: bool = False, prefer: str | None = None) -> Geometry:
    """Reads where a volume lies, from its header alone.

    Args:
        path: A file of one of `FORMATS`.
        assume_affine: As `read_volume`.
        prefer: As `read_volume`.

    Raises:
        InputError: As `read_volume`, for what the header shows.
    """
    return _header(path, assume_affine, prefer, math.inf).geometry


def count_volumes(path: str | os.PathLike[str], *, assume_affine: bool = False, prefer: str | None = None) -> int:
    """How many 3D volumes a file holds, from its header alone.

    Args:
        path: A file of one of `FORMATS`.
        assume_affine: As `read_volume`.
        prefer: As `read_volume`.

    Raises:
        InputError: As `read_volume`, for what the header shows.
    """
    return _header(path, assume_affine, prefer, math.inf).volumes


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
        path: A file of one of `FORMATS`. Trailing axes of length one are dropped.
        assume_affine: Accept a file that states no position, its first axis pointing left.
        prefer: "sform" or "qform": which one holds where the two disagree.
        volume: Which volume of a 4D file to take, from 0.
        nan_to_zero: Replace NaN and infinite voxels by 0 instead of refusing them.
        max_gb: Largest size in memory, in 10^9 bytes.

    Raises:
        InputError: When the file cannot be used; the sentence names it, what was found and the remedy.
        UsageError: When `prefer` or `volume` is not possible.
    """
    info = _header(path, assume_affine, prefer, max_gb)
    raw = format_of(info.path).read_voxels(info, volume)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported as infinite below
        scaled = raw if info.unscaled else raw.astype(np.float64) * info.slope + info.inter
        array = scaled.astype(np.float32, order="C")
    notices = info.notices
    broken = ~np.isfinite(array)
    if broken.any():
        if not nan_to_zero:
            raise InputError(_broken_voxels(info, broken, remedy=", or replace them with --nan-to-zero"))
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
        path: A file of one of `FORMATS`; whole numbers, however they are stored.
        allowed: The label values that may occur; None for any.
        assume_affine: As `read_volume`.
        prefer: As `read_volume`.
        max_gb: As `read_volume`.

    Raises:
        InputError: When the file cannot be used, holds fractions, or a value that is not allowed (E122).
    """
    info = _header(path, assume_affine, prefer, max_gb)
    raw = format_of(info.path).read_voxels(info, None)
    if raw.dtype.kind == "f" or not info.unscaled:
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


def _header(path: str | os.PathLike[str], assume_affine: bool, prefer: str | None, max_gb: float) -> VolumeHeader:
    _check_prefer(prefer)
    file = Path(path)
    check_file(file)
    return format_of(file).read_header(file, assume_affine=assume_affine, prefer=prefer, max_gb=max_gb)


def _check_prefer(prefer: str | None) -> None:
    if prefer not in (None, "sform", "qform"):
        raise UsageError(f'prefer must be "sform" or "qform", got {prefer!r}')


def _broken_voxels(info: VolumeHeader, broken: np.ndarray, remedy: str = "") -> str:
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
