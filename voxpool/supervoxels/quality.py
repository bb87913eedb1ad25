"""How good segments are: against labels, against the image, and by their shape.

Formulas as in Stutz, Hermans, Leibe: Superpixels: an evaluation of the state of the art, CVIU 166 (2018), section 4;
in 3D with voxels and faces in place of pixels and edges. Determinism: counts are integers and sums run in a fixed
order, so the same input gives the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import check_spacing, to_numpy
from voxpool.supervoxels.oracle import oracle_dice

_BOUNDARY_SHARE = 0.0025
"""Of the image's diagonal: how far from a true boundary a segment's may lie."""


@dataclass(frozen=True)
class SegmentQuality:
    """Measures of one segmentation into supervoxels or superpixels; None where what they need was not given.

    Attributes:
        num_segments: Number of segments K that occur.
        sizes: Voxels of the smallest, the median and the largest segment, and mean and standard deviation.
        compactness: 2D: mean of 4 pi A / L^2 over pixels (1 is a disc).
        isoperimetric_quotient: 3D: mean of 36 pi V^2 / A^3 over voxels (1 is a ball, a cube 0.52).
        explained_variation: Share of the image's variance that lies between segments, see `explained_variation`.
        accuracy: Achievable segmentation accuracy, see `achievable_accuracy`.
        undersegmentation_error: 1 - `accuracy`, exactly.
        boundary_recall: See `boundary_recall`.
        oracle_dice: Oracle Dice per class, background first, see `voxpool.supervoxels.oracle_dice`.
    """

    num_segments: int
    sizes: dict[str, float]
    compactness: float | None
    isoperimetric_quotient: float | None
    explained_variation: float | None = None
    accuracy: float | None = None
    undersegmentation_error: float | None = None
    boundary_recall: float | None = None
    oracle_dice: tuple[float, ...] | None = None


def measure_segments(
    segments: Any,
    *,
    image: Any = None,
    labels: Any = None,
    num_classes: int | None = None,
    spacing: Sequence[float] | None = None,
) -> SegmentQuality:
    """Measure segments by all that is given.

    Args:
        segments: Segment ids 0..K-1, (H, W) or (D, H, W), NumPy or torch; -1 is outside the mask.
        image: Single-channel image of the same shape.
        labels: Integer class map of the same shape.
        num_classes: Number of classes, background included; the labels' largest value + 1 by default.
        spacing: Voxel size in mm per axis; 1 each by default.

    Returns:
        The measures.

    Raises:
        UsageError: Shapes differ, or there is no segment.
    """
    ids = _ids(segments)
    counts = _sizes(ids)
    sizes = {
        "min": float(counts.min()),
        "median": float(np.median(counts)),
        "max": float(counts.max()),
        "mean": float(counts.mean()),
        "sd": float(counts.std()),
    }
    roundness = compactness(ids, spacing)
    flat = ids.ndim == 2
    accuracy = recall = oracle = None
    if labels is not None:
        accuracy, recall = achievable_accuracy(ids, labels), boundary_recall(ids, labels)
        classes = int(to_numpy(labels).max()) + 1 if num_classes is None else num_classes
        oracle = tuple(float(dice) for dice in oracle_dice(ids, labels, classes))
    return SegmentQuality(
        num_segments=len(counts),
        sizes=sizes,
        compactness=roundness if flat else None,
        isoperimetric_quotient=None if flat else roundness,
        explained_variation=None if image is None else explained_variation(ids, image),
        accuracy=accuracy,
        undersegmentation_error=None if accuracy is None else 1 - accuracy,
        boundary_recall=recall,
        oracle_dice=oracle,
    )


def achievable_accuracy(segments: Any, labels: Any) -> float:
    """Achievable segmentation accuracy (ASA): the share of voxels that have their segment's majority label.

    Args:
        segments: Segment ids 0..K-1, any shape; voxels with -1 are left out.
        labels: Integer labels of the same shape.

    Returns:
        A number in (0, 1]. The under-segmentation error, the share of voxels outside it, is 1 minus this.

    Raises:
        UsageError: Shapes differ, or there is no segment.
    """
    ids = _ids(segments)
    classes = _same_shape("labels", to_numpy(labels), ids)
    inside = ids >= 0
    values, codes = np.unique(classes[inside], return_inverse=True)
    counts = np.bincount(ids[inside] * len(values) + codes.ravel())
    padded = np.zeros(-(-len(counts) // len(values)) * len(values), counts.dtype)
    padded[: len(counts)] = counts
    return float(padded.reshape(-1, len(values)).max(axis=1).sum() / np.count_nonzero(inside))


def boundary_recall(segments: Any, labels: Any, radius: int | None = None) -> float:
    """Share of the labels' boundary voxels that have a segment boundary near them.

    A voxel is on a boundary if a voxel beyond one of its faces has another label.

    Args:
        segments: Segment ids, (H, W) or (D, H, W); -1 is outside the mask.
        labels: Integer labels of the same shape.
        radius: Near is a cube of 2 * radius + 1 voxels; 0.0025 times the image's diagonal by default, rounded, but
            at least 1.

    Returns:
        A number in [0, 1]; 1 where the labels have no boundary.

    Raises:
        UsageError: Shapes differ, or there is no segment.
    """
    ids = _ids(segments)
    true = _boundary(_same_shape("labels", to_numpy(labels), ids))
    if not true.any():
        return 1.0
    if radius is None:
        radius = max(1, round(_BOUNDARY_SHARE * float(np.linalg.norm(ids.shape))))
    from scipy import ndimage

    near = ndimage.maximum_filter(_boundary(ids), size=2 * radius + 1)
    return float(np.count_nonzero(near & true) / np.count_nonzero(true))


def explained_variation(segments: Any, image: Any) -> float:
    """Share of the variance of the image inside the segments that remains when each segment has its mean.

    Args:
        segments: Segment ids 0..K-1, any shape; voxels with -1 are left out.
        image: Single-channel image of the same shape.

    Returns:
        A number in [0, 1]; NaN where the image is constant.

    Raises:
        UsageError: Shapes differ, or there is no segment.
    """
    ids = _ids(segments)
    inside = ids >= 0
    values = _same_shape("image", to_numpy(image), ids)[inside].astype(np.float64)
    values -= values.mean()
    sums = np.bincount(ids[inside], weights=values)
    counts = np.bincount(ids[inside])
    between = float((sums[counts > 0] ** 2 / counts[counts > 0]).sum())
    whole = float((values**2).sum())
    return between / whole if whole > 0 else float("nan")


def compactness(segments: Any, spacing: Sequence[float] | None = None) -> float:
    """How round segments are, as a mean over their voxels: 4 pi A / L^2 in 2D, 36 pi V^2 / A^3 in 3D.

    The 3D form is the isoperimetric quotient. Lengths and areas are those of pixel edges and voxel faces, so even a
    large ball does not reach 1; a square has pi / 4, a cube pi / 6.

    Args:
        segments: Segment ids 0..K-1, (H, W) or (D, H, W); -1 is outside the mask.
        spacing: Voxel size in mm per axis; 1 each by default.

    Returns:
        A number in (0, 1).

    Raises:
        UsageError: If there is no segment or the number of axes is neither 2 nor 3.
    """
    ids = _ids(segments)
    if ids.ndim not in (2, 3):
        raise UsageError(f"segments must have 2 or 3 axes, got shape {ids.shape}.")
    mm = check_spacing(spacing, ids.ndim)
    counts = np.bincount(ids[ids >= 0])
    content = counts * float(np.prod(mm))
    surface = np.zeros(len(counts))
    padded = np.pad(ids, 1, constant_values=-1)
    for axis in range(ids.ndim):
        face = float(np.prod([s for other, s in enumerate(mm) if other != axis]))
        low, high = (np.take(padded, range(start, padded.shape[axis] + start - 1), axis) for start in (0, 1))
        for side in (low[low != high], high[low != high]):
            surface += face * np.bincount(side[side >= 0], minlength=len(counts))
    used = counts > 0
    if ids.ndim == 2:
        quotient = 4 * np.pi * content[used] / surface[used] ** 2
    else:
        quotient = 36 * np.pi * content[used] ** 2 / surface[used] ** 3
    return float((counts[used] * quotient).sum() / counts.sum())


def _ids(segments: Any) -> np.ndarray:
    ids = to_numpy(segments)
    if ids.dtype.kind not in "iu":
        raise UsageError(f"segments must hold integers, got {ids.dtype}.")
    if not ids.size or ids.max() < 0 or ids.min() < -1:
        raise UsageError(f"segments must hold ids from 0 on, and -1 for none, got {ids.size} voxels without.")
    return ids.astype(np.int64, copy=False)


def _same_shape(name: str, array: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if array.shape != ids.shape:
        raise UsageError(f"{name} must have the shape of the segments, {ids.shape}, got {array.shape}.")
    return array


def _sizes(ids: np.ndarray) -> np.ndarray:
    counts = np.bincount(ids[ids >= 0])
    return counts[counts > 0]


def _boundary(labels: np.ndarray) -> np.ndarray:
    """Voxels with another label beyond one of their faces."""
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        differs = np.diff(labels, axis=axis) != 0
        for start in (0, 1):
            place = [slice(None)] * labels.ndim
            place[axis] = slice(start, start + differs.shape[axis])
            found[tuple(place)] |= differs
    return found
