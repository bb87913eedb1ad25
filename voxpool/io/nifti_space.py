"""Where a NIfTI header places its grid: sform, qform, their codes and the unit of length."""

import math
from typing import Any

import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.volumeutils import shape_zoom_affine

from voxpool.errors import InputError

from .geometry import Geometry
from .volume import HeaderCodes

_QUATERNION = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_ROWS = ("srow_x", "srow_y", "srow_z")
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_MISMATCH_MM = 1e-3

Shape = tuple[int, int, int]


def codes_of(header: Any) -> HeaderCodes:
    """Takes the fields about space from a nibabel header."""
    return HeaderCodes(
        version=2 if int(header["sizeof_hdr"]) == 540 else 1,
        pixdim=tuple(float(size) for size in header["pixdim"][:4]),
        qform_code=int(header["qform_code"]),
        quaternion=tuple(float(header[field]) for field in _QUATERNION),
        sform_code=int(header["sform_code"]),
        srow=tuple(float(value) for row in _ROWS for value in header[row]),
        xyzt_units=int(header["xyzt_units"]),
    )


def restore(header: Any, codes: HeaderCodes) -> None:
    """Puts the fields about space into a nibabel header, bit for bit."""
    header["pixdim"][:4] = codes.pixdim
    header["qform_code"], header["sform_code"] = codes.qform_code, codes.sform_code
    header["xyzt_units"] = codes.xyzt_units
    for field, value in zip(_QUATERNION, codes.quaternion, strict=True):
        header[field] = value
    for field, row in zip(_ROWS, np.reshape(codes.srow, (3, 4)), strict=True):
        header[field] = row


def place(codes: HeaderCodes, shape: Shape, assume_affine: bool, prefer: str | None) -> tuple[Geometry, list[str]]:
    """Decides where a grid lies.

    Args:
        codes: From `codes_of`.
        shape: Its three axis lengths.
        assume_affine: Accept that the file states no position.
        prefer: "sform" or "qform": which one holds where the two disagree.

    Returns:
        The geometry in mm, and what was assumed.

    Raises:
        InputError: E112 to E115, without the file's name.
    """
    if codes.sform_code <= 0 and codes.qform_code <= 0:
        if not assume_affine:
            raise InputError(
                "states no position in space (sform and qform codes are both 0), so left and right are "
                "unknown; write a qform or sform, or accept it with --assume-affine (E113)"
            )
        return assumed_place(codes, shape), ["it states no position; took its first axis to point left"]
    if codes.sform_code <= 0:
        return qform_place(codes, shape), []
    if codes.qform_code <= 0:
        return sform_place(codes, shape), []
    if prefer == "qform":
        return qform_place(codes, shape), ["took its qform; its sform may place it elsewhere"]
    sform = sform_place(codes, shape)
    if prefer == "sform":
        return sform, ["took its sform; its qform may place it elsewhere"]
    qform = qform_place(codes, shape)
    apart = sform.distance_mm(qform)
    if apart > _MISMATCH_MM and not _same_within_rounding(codes, sform, qform):
        raise InputError(
            f"its sform and qform place it up to {apart:.3g} mm apart; say which one is right, "
            "--prefer sform or --prefer qform, or repair its header (E114)"
        )
    return sform, []


def places(codes: HeaderCodes, shape: Shape) -> list[Geometry]:
    """All geometries that a header can be read as, for `voxpool.io.write_volume`."""
    ways = [sform_place] if codes.sform_code > 0 else []
    ways += [qform_place] if codes.qform_code > 0 else []
    found = []
    for way in ways or [assumed_place]:
        try:
            found.append(way(codes, shape))
        except InputError:  # the other one was preferred
            continue
    return found


def sform_place(codes: HeaderCodes, shape: Shape) -> Geometry:
    """The grid that the matrix states."""
    return _in_mm(np.vstack([np.reshape(codes.srow, (3, 4)), [0, 0, 0, 1]]), codes, shape)


def qform_place(codes: HeaderCodes, shape: Shape) -> Geometry:
    """The grid that quaternion, offset and voxel sizes state.

    Raises:
        InputError: E112, when the quaternion is longer than 1 or a number is not finite; E115 for sizes.
    """
    b, c, d, *origin = codes.quaternion
    sizes = _sizes(codes)
    real_squared = 1.0 - (b * b + c * c + d * d)
    if not np.isfinite(codes.quaternion).all() or real_squared < -1e-5:
        raise InputError("the qform's quaternion is longer than 1 or holds NaN; write a valid qform or sform (E112)")
    handed = -1.0 if codes.pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([math.sqrt(max(real_squared, 0.0)), b, c, d]) * (sizes * [1.0, 1.0, handed])
    affine[:3, 3] = origin
    return _in_mm(affine, codes, shape)


def assumed_place(codes: HeaderCodes, shape: Shape) -> Geometry:
    """NIfTI's fallback, which nibabel also takes: first axis to the left, grid centred on the origin."""
    return _in_mm(shape_zoom_affine(shape, _sizes(codes), x_flip=True), codes, shape)


def _sizes(codes: HeaderCodes) -> np.ndarray:
    sizes = np.array(codes.pixdim[1:])
    if not np.isfinite(sizes).all() or sizes.min() <= 0:
        raise InputError(
            f"its voxels measure {' x '.join(f'{s:g}' for s in sizes)}, wanted positive numbers; "
            "write the right sizes into its header (E115)"
        )
    return sizes


def _in_mm(affine: np.ndarray, codes: HeaderCodes, shape: Shape) -> Geometry:
    scaled = np.array(affine, dtype=np.float64)
    with np.errstate(over="ignore"):  # infinity is refused by the geometry
        # An unknown unit is taken as mm, as every other reader does.
        scaled[:3] *= _MM_PER_UNIT.get(codes.xyzt_units & 7, 1.0)
    return Geometry(shape, scaled)


def _same_within_rounding(codes: HeaderCodes, sform: Geometry, qform: Geometry) -> bool:
    """Whether two forms differ by no more than the rounding of the stored numbers.

    The quaternion's real part is what is left of 1 after the three stored squares. Near a half turn it is
    small, and rounding of the squares then turns the volume visibly about its first voxel.
    """
    rounding = 4 * float(np.finfo(np.float32 if codes.version == 1 else np.float64).eps)
    b, c, d = codes.quaternion[:3]
    real = math.sqrt(max(1.0 - (b * b + c * c + d * d), rounding))
    first = sform.corners()[0]
    size = float(np.linalg.norm(sform.corners()[-1] - first))
    shift = float(np.linalg.norm(first - qform.corners()[0]))
    turn = sform.distance_mm(qform) - shift
    return shift <= _MISMATCH_MM + rounding * np.abs(first).max() and turn <= _MISMATCH_MM + size * rounding / real
