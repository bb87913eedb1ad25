"""NRRD and MetaImage files, read by SimpleITK."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from voxpool.errors import InputError, ResourceError

from .geometry import Geometry
from .header import VolumeHeader, check_dims, check_size, unusual

EXTENSIONS = (".nrrd", ".nhdr", ".mha", ".mhd")

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""ITK's and DICOM's coordinates run to the left and to the back."""

_DETACHED = (".nhdr", ".mhd")
_MOST_TEXT = 1 << 16  # bytes of a header of text
_DATA_FILE = re.compile(rb"^(?:data ?file:|ElementDataFile *=) *(\S[^\r\n]*?) *\r?$", re.IGNORECASE | re.MULTILINE)
_AXES = re.compile(rb"^\s*NDims\s*=\s*([^\s]+)", re.MULTILINE)
_PIXEL = re.compile(r"(\d+)-bit (signed integer|unsigned integer|float)")
_KINDS = {"signed integer": "i", "unsigned integer": "u", "float": "f"}
_COLOURS = (3, 4)  # components of a colour, with and without opacity


def simpleitk(what: str) -> Any:
    """SimpleITK, silenced.

    Raises:
        ResourceError: If it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise ResourceError(f'{what} needs SimpleITK; run pip install "voxpool[dicom]"') from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def companion(path: Path) -> Path | None:
    """The file of voxels that a detached header names; None for other headers.

    Raises:
        InputError: E101 or E134, when it is not beside the header.
    """
    if path.suffix.lower() not in _DETACHED:
        return None
    with path.open("rb") as file:
        found = _DATA_FILE.search(file.read(_MOST_TEXT))
    name = found.group(1).decode("utf-8", "replace") if found else ""
    if not name or name.startswith("LIST") or "%" in name:
        raise InputError(f"{path.name}: names no single file of voxels; save it as one .nrrd or .mha file (E105)")
    if name == "LOCAL":
        return None
    if Path(name).name != name:
        raise InputError(f"{path.name}: names voxels in another folder, {name}; put both files into one (E134)")
    if not (path.parent / name).is_file():
        raise InputError(f"{path.name}: its voxels {name} are missing; copy them beside it (E101)")
    return path.parent / name


def read_header(path: Path, *, assume_affine: bool, prefer: str | None, max_gb: float) -> VolumeHeader:
    """Reads and checks a header.

    Args:
        path: A `.nrrd`, `.nhdr`, `.mha` or `.mhd` file.
        assume_affine: Accept an NRRD file that names no space, as if it were ITK's own.
        prefer: Of no meaning here: the formats have one place for the position.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is not of its format, or says something that no 3D scan can have.
        ResourceError: If SimpleITK is not installed.
    """
    reader = _reader(path)
    _check_axes(path)
    data = companion(path)
    size = path.stat().st_size + (data.stat().st_size if data else 0)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{path.name}: cannot be read ({_reason(error, path)}); convert it or copy it again (E103)"
        ) from None
    dtype, components = _dtype(reader, path.name), int(reader.GetNumberOfComponents())
    lengths = [int(each) for each in reader.GetSize()]
    dims = check_dims([*lengths, components] if components > 1 else lengths, path.name)
    check_size(path, dims, dtype.itemsize, offset=0, compressed=True, max_gb=max_gb, size=size)
    placed = path.suffix.lower() not in (".nrrd", ".nhdr") or reader.HasMetaDataKey("NRRD_space")
    if not placed and not assume_affine:
        raise InputError(
            f"{path.name}: names no space, so left and right are unknown; write it with a space, or accept it"
            " with --assume-affine (E113)"
        )
    try:
        geometry = Geometry((dims[0], dims[1], dims[2]), _affine(reader))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    notices = [] if placed else ["it names no space; took its first axis to point left, its second to the back"]
    return VolumeHeader(
        path=path,
        gzipped=False,
        dims=dims,
        dtype=dtype,
        offset=0,
        slope=1.0,
        inter=0.0,
        geometry=geometry,
        codes=None,
        notices=(*notices, *unusual(geometry)),
    )


def _check_axes(path: Path) -> None:
    """Refuse a MetaImage of impossibly many axes, for which ITK's process ends.

    Raises:
        InputError: E107.
    """
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    with path.open("rb") as file:
        stated = [found.decode("ascii", "replace") for found in _AXES.findall(file.read(_MOST_TEXT))]
    for number in stated:
        if number not in ("1", "2", "3", "4", "5"):
            raise InputError(f"{path.name}: its header claims {number} axes, wanted 3; the file is damaged (E107)")


def read_voxels(header: VolumeHeader, volume: int | None) -> np.ndarray:
    """Returns the stored numbers of one 3D volume.

    Raises:
        InputError: E104 or E109.
        UsageError: When there is no such volume.
    """
    chosen = header.chosen(volume)
    try:
        array = _stored(header.path)
    except RuntimeError as error:
        reason = _reason(error, header.path)
        raise InputError(
            f"{header.path.name}: is cut off or damaged ({reason}); copy it again from its source (E104)"
        ) from None
    return array.reshape(-1, *reversed(header.dims[:3]))[chosen].T


def _reader(path: Path) -> Any:
    reader = simpleitk(f"{path.suffix} file {path.name}").ImageFileReader()
    reader.SetFileName(str(path))
    # named, or ITK would take the file for any format that it looks like
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() in (".nrrd", ".nhdr") else "MetaImageIO")
    return reader


def _stored(path: Path) -> np.ndarray:
    """All voxels, the first axis of the file last, components first."""
    image = _reader(path).Execute()
    array = simpleitk(path.name).GetArrayFromImage(image)
    return np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array


def _dtype(reader: Any, name: str) -> np.dtype:
    pixel = simpleitk(name).GetPixelIDValueAsString(reader.GetPixelID())
    found = _PIXEL.search(pixel)
    if found is None or "complex" in pixel:
        raise InputError(f"{name}: holds {pixel}, wanted one real number per voxel; convert it to grey values (E110)")
    dtype = np.dtype(f"{_KINDS[found.group(2)]}{int(found.group(1)) // 8}")
    if reader.GetNumberOfComponents() in _COLOURS and dtype == np.uint8:
        raise InputError(
            f"{name}: holds colours (RGB), wanted one real number per voxel; convert it to grey values (E110)"
        )
    return dtype


def _affine(reader: Any) -> np.ndarray:
    dimension = int(reader.GetDimension())
    directions = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = LPS_TO_RAS @ np.array(reader.GetOrigin()[:3])
    return affine


def _reason(error: RuntimeError, path: Path) -> str:
    """The last line of what ITK says, without where in its source it says so and where the file lies."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = re.sub(r"^(sitk::ERROR:|\S+\(0x[0-9a-f]+\):) *", "", lines[-1]) if lines else "no reason is given"
    return last.replace(str(path), path.name).rstrip(".!")
