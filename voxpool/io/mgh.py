"""MGH and MGZ files, FreeSurfer's own: a header of fixed fields, big-endian, and the voxels behind it."""

import struct
from pathlib import Path

import numpy as np

from voxpool.errors import InputError

from .geometry import Geometry
from .header import VolumeHeader, check_dims, check_size, starts_as_gzip, unusual
from .stream import read_start

EXTENSIONS = (".mgz", ".mgh.gz", ".mgh")

_LENGTH = 284  # bytes before the voxels
# version, 4 lengths, type, degrees of freedom, whether the position is given, then 3 sizes, 3 directions, centre
_FIELDS = struct.Struct(">7ih15f")
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


def read_header(path: Path, *, assume_affine: bool, prefer: str | None, max_gb: float) -> VolumeHeader:
    """Reads and checks a header.

    Args:
        path: A `.mgz` or `.mgh` file.
        assume_affine: Accept a file that states no position, with FreeSurfer's fallback: a coronal volume, voxels
            of 1 mm, centred on the origin.
        prefer: Of no meaning here: the format has one place for the position.
        max_gb: Largest size of the voxels in memory, in 10^9 bytes.

    Raises:
        InputError: When the file is not MGH, or says something that no 3D scan can have.
    """
    name, gzipped = path.name, starts_as_gzip(path)
    if gzipped != name.lower().endswith((".mgz", ".gz")):
        raise InputError(
            f"{name}: is {'gzip data' if gzipped else 'no gzip data'}; rename it to {'.mgz' if gzipped else '.mgh'}"
            " (E103)"
        )
    block = read_start(path, gzipped, _LENGTH)
    if len(block) < _LENGTH:
        raise InputError(
            f"{name}: ends early, inside its header ({len(block)} of {_LENGTH} bytes); copy it again (E104)"
        )
    version, *lengths, kind, _, placed = (values := _FIELDS.unpack_from(block))[:8]
    if version != 1:
        raise InputError(f"{name}: is not MGH data (version {version}, wanted 1); convert it (E103)")
    if kind not in _TYPES:
        raise InputError(f"{name}: unknown voxel type {kind}, wanted integers or real numbers; convert it (E110)")
    dims, dtype = check_dims(lengths, name), np.dtype(_TYPES[kind])
    size = path.stat().st_size
    check_size(path, dims, dtype.itemsize, offset=_LENGTH, compressed=gzipped, max_gb=max_gb, size=size)
    if not placed and not assume_affine:
        raise InputError(
            f"{name}: states no position in space, so left and right are unknown; write it with mri_convert, or accept"
            " it with --assume-affine (E113)"
        )
    try:
        geometry = Geometry((dims[0], dims[1], dims[2]), _affine(dims, values[8:] if placed else _FALLBACK))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    notices = [] if placed else ["it states no position; took it for coronal with voxels of 1 mm"]
    return VolumeHeader(
        path=path,
        gzipped=gzipped,
        dims=dims,
        dtype=dtype,
        offset=_LENGTH,
        slope=1.0,
        inter=0.0,
        geometry=geometry,
        codes=None,
        notices=(*notices, *unusual(geometry)),
    )


_FALLBACK = (1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)


def _affine(dims: tuple[int, ...], fields: tuple[float, ...]) -> np.ndarray:
    """Voxel sizes, the directions of the axes and the centre, as one matrix."""
    sizes, directions, centre = np.array(fields[:3]), np.reshape(fields[3:12], (3, 3)).T, np.array(fields[12:])
    if not np.isfinite(fields).all():
        raise InputError("the position holds NaN or infinite numbers; write it anew with mri_convert (E112)")
    if sizes.min() <= 0:
        raise InputError(
            f"its voxels measure {' x '.join(f'{s:g}' for s in sizes)}, wanted positive numbers; "
            "write the right sizes into its header (E115)"
        )
    affine = np.eye(4)
    affine[:3, :3] = directions * sizes
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(dims[:3]) / 2)
    return affine
