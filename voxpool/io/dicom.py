"""DICOM folders: which series lie there, which of them is a volume, and that volume with its place in space.

Files are read by GDCM through SimpleITK. What is missing or crooked is refused by name: a series with a gap, read as if
it had none, moves everything behind the gap.
"""

import mmap
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxpool.errors import InputError, ResourceError

from .geometry import Geometry
from .itk import LPS_TO_RAS, simpleitk
from .volume import Volume

_SAME_DIRECTION = 1e-4
_UNEVEN = 0.02
"""How much a step between slices may differ from the others, as a share of it."""

_TILT_MM = 0.1
"""How far slices may be shifted against each other, over all of them."""

_UID, _DESCRIPTION, _MODALITY = "0020|000e", "0008|103e", "0008|0060"
_POSITION, _ORIENTATION, _PIXELS = "0020|0032", "0020|0037", "0028|0030"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_PREAMBLE = 128
"""Bytes before the letters DICM."""

# the letters, and the first element of the group that tells how the rest is written
_FIRST = re.compile(rb"DICM\x02\x00..(UL|OB|UI)", re.DOTALL)
_LONG = 4096  # bytes of an element that need not be read to look at its length
_UNDEFINED = 0xFFFFFFFF  # of a sequence that says where it ends


@dataclass(frozen=True)
class Series:
    """One series of a folder.

    Attributes:
        uid: Its SeriesInstanceUID.
        description: Its SeriesDescription, or an empty text.
        modality: Such as "MR" or "CT".
        files: Its files, from the first slice to the last.
        geometry: Where the volume lies; None where it is none.
        problem: Why it cannot be read as a volume, one sentence; None if it can.
    """

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    geometry: Geometry | None
    problem: str | None


@dataclass(frozen=True)
class _Slice:
    path: Path
    uid: str
    description: str
    modality: str
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixels: tuple[float, ...] | None
    size: tuple[int, int]


def list_series(folder: str | os.PathLike[str]) -> list[Series]:
    """The series of a folder and the folders in it, those that are volumes first, the largest first.

    Args:
        folder: Folder of DICOM files; other files are passed over.

    Raises:
        InputError: If it holds no DICOM file, or a damaged one.
        ResourceError: If SimpleITK is not installed.
    """
    root = Path(folder)
    slices: dict[str, list[_Slice]] = {}
    reader = _reader()
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        found = _read_slice(reader, path)
        if found is not None:
            slices.setdefault(found.uid, []).append(found)
    if not slices:
        raise InputError(f"{root} holds no DICOM image; name the folder of a series (E130)")
    series = [_series(each) for each in slices.values()]
    return sorted(series, key=lambda one: (one.problem is not None, -len(one.files), one.uid))


def read_series(series: Series, *, progress: Callable[[float], None] | None = None) -> Volume:
    """Read a series as one volume, float32, scaled as its files say.

    Args:
        series: One of `list_series`.
        progress: Called with the fraction read.

    Raises:
        InputError: If it is no volume, or a file cannot be decoded.
    """
    name = series.description or series.uid
    if series.problem is not None or series.geometry is None:
        raise InputError(f"series {name}: {series.problem}")
    reader = _reader()
    array = np.empty(series.geometry.shape, np.float32)
    for number, path in enumerate(series.files):
        reader.SetFileName(str(path))
        try:
            plane = _array(reader.Execute())
        except RuntimeError as error:
            raise InputError(
                f"{path.name}: its voxels cannot be decoded; convert the series with dcm2niix, or export it"
                " uncompressed (E133)"
            ) from error
        array[:, :, number] = plane.reshape(plane.shape[-2:]).T
        if progress:
            progress((number + 1) / len(series.files))
    if not np.isfinite(array).all():
        raise InputError(f"series {name}: holds NaN or infinite voxels; export it again (E112)")
    return Volume(array, series.geometry, notices=_notices(series.geometry), sources=series.files)


def read_dicom(folder: str | os.PathLike[str], *, uid: str | None = None) -> Volume:
    """Read the one volume of a folder, or the series that is named.

    Args:
        folder: Folder of DICOM files.
        uid: SeriesInstanceUID; needed where the folder holds several volumes.

    Raises:
        InputError: If there is no such volume, or several and none is named.
        ResourceError: If SimpleITK is not installed.
    """
    found = list_series(folder)
    if uid is not None:
        chosen = [each for each in found if each.uid == uid]
        if not chosen:
            raise InputError(f"{folder} holds no series {uid}; it holds {_listed(found)} (E130)")
        return read_series(chosen[0])
    volumes = [each for each in found if each.problem is None]
    if not volumes:
        raise InputError(f"{folder} holds no volume: {'; '.join(f'{_title(one)}: {one.problem}' for one in found)}")
    if len(volumes) > 1:
        raise InputError(f"{folder} holds {len(volumes)} volumes: {_listed(volumes)}; name one, --series UID (E130)")
    return read_series(volumes[0])


def _reader() -> Any:
    sitk = simpleitk("DICOM")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader


def _array(image: Any) -> np.ndarray:
    return simpleitk("DICOM").GetArrayFromImage(image)


def _read_slice(reader: Any, path: Path) -> _Slice | None:
    """What a file says of itself; None if it is no DICOM image."""
    if not _lengths_fit(path):
        raise InputError(f"{path.name}: is cut off or damaged; copy it again from its source (E104)")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        # reports, presentation states and other files are no images; one with voxels is a slice that would be missed
        if _holds_voxels(path):
            raise InputError(f"{path.name}: is cut off or damaged; copy it again from its source (E104)") from error
        return None
    if not reader.HasMetaDataKey(_UID):
        return None

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""

    def numbers(tag: str, count: int) -> tuple[float, ...] | None:
        try:
            values = tuple(float(each) for each in text(tag).split("\\"))
        except ValueError:
            return None
        return values if len(values) == count and np.isfinite(values).all() else None

    columns, rows = (int(each) for each in reader.GetSize()[:2])
    return _Slice(
        path,
        text(_UID),
        text(_DESCRIPTION),
        text(_MODALITY),
        numbers(_POSITION, 3),
        numbers(_ORIENTATION, 6),
        numbers(_PIXELS, 2),
        (columns, rows),
    )


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM's files do."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def _lengths_fit(path: Path) -> bool:
    """Whether no element claims to be longer than its file: GDCM takes as much memory as is claimed."""
    if not is_dicom_file(path):
        return True
    try:
        import pydicom
        from pydicom.dataelem import RawDataElement
    except ImportError as error:
        raise ResourceError('DICOM needs pydicom; run pip install "voxpool[dicom]"') from error
    size = path.stat().st_size
    with path.open("rb") as file:
        if _FIRST.fullmatch(file.read(_PREAMBLE + 10)[_PREAMBLE:]) is None:
            return False
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the file holds
            whole = pydicom.dcmread(path, stop_before_pixels=True, defer_size=_LONG)
            # without keys() a data set gives its elements, and converts their values
            found: list[Any] = [part.get_item(tag) for part in (whole.file_meta, whole) for tag in part.keys()]  # noqa: SIM118
        unread = [one for one in found if isinstance(one, RawDataElement) and one.length not in (0, _UNDEFINED)]
        return all(one.value_tell + one.length <= size for one in unread)
    except Exception:  # of many kinds, all for damage: what pydicom cannot walk through is not given to GDCM
        return False


def _holds_voxels(path: Path) -> bool:
    """Whether a file begins as DICOM does and has an element of voxels, however long it is."""
    if not is_dicom_file(path):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_PIXEL_DATA) >= 0


def _series(slices: Sequence[_Slice]) -> Series:
    first = slices[0]
    geometry, problem = None, _problem(slices)
    if problem is None:
        slices = sorted(slices, key=_height)
        try:
            geometry, problem = _geometry(slices)
        except InputError as error:
            problem = str(error)
    files = tuple(one.path for one in slices)
    return Series(first.uid, first.description, first.modality, files, geometry, problem)


def _problem(slices: Sequence[_Slice]) -> str | None:
    """Why files are no stack of equal slices; None if they are."""
    if len(slices) < 2:
        return "one slice is no volume, perhaps a localiser (E130)"
    if any(one.position is None or one.orientation is None or one.pixels is None for one in slices):
        return "a file does not say where its slice lies; export the series again (E130)"
    sizes = {one.size for one in slices}
    if len(sizes) > 1:
        listed = " and ".join(f"{columns} x {rows}" for columns, rows in sorted(sizes))
        return f"its slices differ in size, {listed}; split the series (E133)"
    directions = np.array([one.orientation for one in slices])
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        return "its slices point in different directions, as a localiser's do; split the series (E133)"
    spacings = np.array([one.pixels for one in slices])
    if np.abs(spacings - spacings[0]).max() > _SAME_DIRECTION:
        return "its slices differ in pixel size; split the series (E133)"
    return None


def _height(one: _Slice) -> float:
    """Where a slice lies along the stack's normal, in mm."""
    assert one.orientation is not None  # _problem looked
    return float(np.dot(np.cross(one.orientation[:3], one.orientation[3:]), one.position or (0, 0, 0)))


def _geometry(slices: Sequence[_Slice]) -> tuple[Geometry | None, str | None]:
    """Where a sorted stack lies, or why it cannot be one volume."""
    heights = np.array([_height(one) for one in slices])
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if usual <= 0 or steps.min() < _UNEVEN * usual:
        return None, "several slices lie at one place, as in a series over time; split the series (E133)"
    uneven = np.flatnonzero(np.abs(steps - usual) > _UNEVEN * usual)
    if len(uneven):
        number = int(uneven[0])
        return None, (
            f"a gap of {steps[number]:.3g} mm after slice {number + 1} where {usual:.3g} mm are usual: slices are"
            " missing; fetch the whole series (E131)"
        )
    positions = np.array([one.position for one in slices])
    first = slices[0]
    assert first.orientation is not None  # _problem looked
    assert first.pixels is not None
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(across, down)
    shift = positions - positions[0] - np.outer(heights - heights[0], normal)
    if np.abs(shift).max() > _TILT_MM:
        return None, (
            f"its slices are shifted by {np.abs(shift).max():.3g} mm against each other, as by a tilted gantry;"
            " convert it with dcm2niix, which untilts it (E132)"
        )
    affine = np.eye(4)
    affine[:3, 0] = across * first.pixels[1]  # PixelSpacing: between rows first, then between columns
    affine[:3, 1] = down * first.pixels[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return Geometry((*first.size, len(slices)), affine), None


def _notices(geometry: Geometry) -> tuple[str, ...]:
    oblique = geometry.obliquity_degrees
    return (f"it is oblique by {oblique:.1f} degrees",) if oblique > 1 else ()


def _title(series: Series) -> str:
    return series.description or series.uid


def _listed(series: Sequence[Series]) -> str:
    return "; ".join(f"{_title(one)} ({len(one.files)} slices, {one.uid})" for one in series)
