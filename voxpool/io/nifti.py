"""NIfTI volumes out."""

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from voxpool.errors import UsageError

from .atomic import atomic_path
from .nifti_header import EXTENSIONS
from .nifti_space import places, restore
from .volume import Volume

_INTEGERS = (np.uint8, np.int16, np.int32)


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
