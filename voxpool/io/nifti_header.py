"""NIfTI headers: parsed and judged before a single voxel is read."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from voxpool.errors import InputError

from .header import VolumeHeader, check_dims, check_size, starts_as_gzip, unusual
from .nifti_space import codes_of, place
from .stream import read_start

EXTENSIONS = (".nii.gz", ".nii", ".img.gz", ".img")
"""An `.img` has its header beside it, as `.hdr`: NIfTI too, or Analyze 7.5."""

_PAIRS = (".img.gz", ".img")
# of a header of Analyze, what NIfTI reads at the same places as units and as position
_NOT_ANALYZE = ((116, 124), (252, 348))
_ANALYZE_LENGTH = 348


def companion(path: Path) -> Path | None:
    """The header of an `.img`, wherever it lies beside it; None for single files.

    Raises:
        InputError: E101, when it is missing.
    """
    ending = next((each for each in _PAIRS if path.name.lower().endswith(each)), None)
    if ending is None:
        return None
    name = path.name[: -len(ending)]
    beside = [path.with_name(name + each) for each in (".hdr", ".hdr.gz", ".HDR")]
    found = next((each for each in beside if each.is_file()), None)
    if found is None:
        raise InputError(f"{path.name}: its header {beside[0].name} is missing; copy it beside it (E101)")
    return found


def read_header(path: Path, *, assume_affine: bool, prefer: str | None, max_gb: float) -> VolumeHeader:
    """Reads and checks a header.

    Args:
        path: A `.nii`, `.nii.gz`, `.img` or `.img.gz` file.
        assume_affine: Accept a file that states no position (both codes 0), with NIfTI's fallback: first axis
            to the left, grid centred on the origin.
        prefer: "sform" or "qform": which one holds where the two disagree.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is not NIfTI, or says something that no 3D scan can have.
    """
    gzipped = _sniff(path)
    apart = companion(path)
    header, length = _parse(path, gzipped) if apart is None else _parse_apart(apart)
    dims = _dims(header, path.name)
    dtype = _dtype(header, path.name)
    # in one file the voxels follow the header and the mark of its extensions
    offset = _offset(header, 0 if apart else length + 4, path.name)
    size = path.stat().st_size
    check_size(path, dims, dtype.itemsize, offset=offset, compressed=gzipped, max_gb=max_gb, size=size)
    slope, inter = _scaling(header, path.name)
    codes = codes_of(header)
    try:
        geometry, notices = place(codes, (dims[0], dims[1], dims[2]), assume_affine, prefer)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    return VolumeHeader(
        path=path,
        gzipped=gzipped,
        dims=dims,
        dtype=dtype,
        offset=offset,
        slope=slope,
        inter=inter,
        geometry=geometry,
        codes=codes,
        notices=(*notices, *unusual(geometry)),
    )


def _sniff(path: Path) -> bool:
    """Whether a file is gzip data, which its name must say too."""
    name, gzipped = path.name, starts_as_gzip(path)
    if name.lower().endswith(".gz") and not gzipped:
        raise InputError(f"{name}: is not gzip data; rename it to .nii if it is plain NIfTI (E103)")
    if gzipped and not name.lower().endswith(".gz"):
        raise InputError(f"{name}: is gzip data under the name of plain NIfTI; rename it to .nii.gz (E103)")
    return gzipped


def _parse(path: Path, gzipped: bool) -> tuple[Any, int]:
    """Returns nibabel's header object of a single file, and the header's length in it."""
    name, block = path.name, read_start(path, gzipped, 540)
    header, magic = _header_in(block, name)
    if magic in (b"ni1", b"ni2"):
        raise InputError(f"{name}: is one half of a .hdr/.img pair; name the .img file (E103)")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{name}: has no NIfTI mark (Analyze 7.5?), so left and right are unknown; convert it (E103)")
    return header, len(header.binaryblock)


def _parse_apart(path: Path) -> tuple[Any, int]:
    """The same of a header that is a file of its own; one of Analyze becomes one of NIfTI that states no position."""
    block = read_start(path, _sniff(path), 540)
    header, magic = _header_in(block, path.name)
    if magic not in (b"ni1", b"ni2"):
        if len(header.binaryblock) != _ANALYZE_LENGTH:
            raise InputError(f"{path.name}: has no NIfTI mark and is no Analyze header; convert it (E103)")
        plain = bytearray(header.binaryblock)
        for start, end in _NOT_ANALYZE:
            plain[start:end] = bytes(end - start)
        header = type(header)(bytes(plain), endianness=header.endianness, check=False)
    return header, len(header.binaryblock)


def _header_in(block: bytes, name: str) -> tuple[Any, bytes]:
    """Nibabel's header object, and the mark that says what kind of file it is of."""
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
    return header, block[344:347] if length == 348 else block[4:7]


def _dims(header: Any, name: str) -> tuple[int, ...]:
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise InputError(f"{name}: its header claims {ndim} axes, wanted 3; the file is damaged (E107)")
    return check_dims([int(n) for n in header["dim"][1 : ndim + 1]], name)


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


def _offset(header: Any, first: int, name: str) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:  # some writers leave it out
        return first
    if not math.isfinite(offset) or offset != int(offset) or not first <= offset < 2**40:
        raise InputError(f"{name}: says that its voxels start at byte {offset:g}; the file is damaged (E104)")
    return int(offset)


def _scaling(header: Any, name: str) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI: a slope of 0 means that there is no scaling
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(inter):
        raise InputError(f"{name}: scales its voxels by {slope:g} and {inter:g}; repair its header (E110)")
    return slope, inter
