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

EXTENSIONS = (".nii.gz", ".nii")


def read_header(path: Path, *, assume_affine: bool, prefer: str | None, max_gb: float) -> VolumeHeader:
    """Reads and checks a header.

    Args:
        path: A `.nii` or `.nii.gz` file.
        assume_affine: Accept a file that states no position (both codes 0), with NIfTI's fallback: first axis
            to the left, grid centred on the origin.
        prefer: "sform" or "qform": which one holds where the two disagree.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is not NIfTI, or says something that no 3D scan can have.
    """
    gzipped = _sniff(path)
    header, start = _parse(path, gzipped)
    dims = _dims(header, path.name)
    dtype = _dtype(header, path.name)
    offset = _offset(header, start, path.name)
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
    """Returns nibabel's header object and its length in the file."""
    name = path.name
    block = read_start(path, gzipped, 540)
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


def _offset(header: Any, start: int, name: str) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:  # some writers leave it out; the voxels then follow the header and its extension mark
        return start + 4
    if not math.isfinite(offset) or offset != int(offset) or not start + 4 <= offset < 2**40:
        raise InputError(f"{name}: says that its voxels start at byte {offset:g}; the file is damaged (E104)")
    return int(offset)


def _scaling(header: Any, name: str) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI: a slope of 0 means that there is no scaling
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(inter):
        raise InputError(f"{name}: scales its voxels by {slope:g} and {inter:g}; repair its header (E110)")
    return slope, inter
