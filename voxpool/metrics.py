"""Scores of one prediction against its target: Dice, surface distances and volumes, class by class.

Whether a class is empty is decided before any library is asked, because libraries disagree about empty masks
and some turn a missed structure into a value that an average silently drops. The policy:

| target    | prediction | Dice  | HD95, ASSD             | status           | in the mean            |
|-----------|------------|-------|------------------------|------------------|------------------------|
| empty     | empty      | NaN   | NaN                    | `absent_ok`      | excluded, counted      |
| empty     | not empty  | 0     | NaN                    | `false_positive` | Dice as 0, counted     |
| not empty | empty      | 0     | image diagonal (in mm) | `missed`         | included               |
| not empty | not empty  | value | value                  | `ok`             | included               |
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from voxpool.errors import InputError

Status = Literal["ok", "missed", "false_positive", "absent_ok"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in one case.

    Attributes:
        dice: Dice coefficient, 0 to 1; NaN when the class is absent from both.
        hd95_mm: 95th percentile Hausdorff distance in mm: the larger of the two directed 95th percentiles
            over boundary voxels. The image diagonal when the class was missed, NaN when the
            target has none of it.
        assd_mm: Average symmetric surface distance in mm, with the same values for empty masks.
        volume_ml: Volume of the class in the prediction, in mL.
        target_volume_ml: Volume of the class in the target, in mL.
        status: Which row of the module's policy applies.
    """

    dice: float
    hd95_mm: float
    assd_mm: float
    volume_ml: float
    target_volume_ml: float
    status: Status


def score_case(
    prediction: np.ndarray, target: np.ndarray, *, spacing: Sequence[float], label_names: Mapping[int, str]
) -> dict[str, ClassScore]:
    """Score a prediction against its target on the target's own grid.

    Args:
        prediction: Integer class map of shape (*S).
        target: Integer class map of shape (*S).
        spacing: Voxel size in mm, one per axis, in array order.
        label_names: Name of each class; class 0 is background and is not scored.

    Returns:
        One score per foreground class, in the order of the class ids.

    Raises:
        InputError: If the grids differ, a map is not integer or holds a class without a name, or the spacing
            is not one positive size per axis.
    """
    _check(prediction, target, spacing, label_names)
    spacing = tuple(float(step) for step in spacing)
    diagonal_mm = math.hypot(*(size * step for size, step in zip(target.shape, spacing, strict=True)))
    return {
        name: _score_class(prediction == label, target == label, spacing=spacing, diagonal_mm=diagonal_mm)
        for label, name in sorted(label_names.items())
        if label != 0
    }


def dice_background(prediction: np.ndarray, target: np.ndarray) -> float:
    """Dice of class 0, which is reported beside the foreground and never averaged into it.

    Args:
        prediction: Integer class map of shape (*S).
        target: Integer class map of shape (*S).

    Returns:
        Dice of the background, 0 to 1; NaN when neither map has any.
    """
    return dice(prediction == 0, target == 0)


def dice(prediction: np.ndarray, target: np.ndarray) -> float:
    """Dice coefficient of two masks.

    Args:
        prediction: Boolean mask of shape (*S).
        target: Boolean mask of shape (*S).

    Returns:
        2 |P ∩ T| / (|P| + |T|), or NaN when both masks are empty.
    """
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(target))
    return 2 * int(np.count_nonzero(prediction & target)) / total if total else math.nan


def foreground_dice(scores: Mapping[str, ClassScore]) -> float:
    """Mean Dice over the foreground classes of a case.

    Args:
        scores: Scores of the case, as `score_case` returns them.

    Returns:
        The mean over the classes that the policy includes; NaN when every class is absent.
    """
    values = [score.dice for score in scores.values() if score.status != "absent_ok"]
    return sum(values) / len(values) if values else math.nan


def _score_class(
    prediction: np.ndarray, target: np.ndarray, *, spacing: tuple[float, ...], diagonal_mm: float
) -> ClassScore:
    predicted, wanted = int(np.count_nonzero(prediction)), int(np.count_nonzero(target))
    if predicted and wanted:
        status: Status = "ok"
        hd95_mm, assd_mm = _surface_distances(prediction, target, spacing)
    elif wanted:
        status, hd95_mm, assd_mm = "missed", diagonal_mm, diagonal_mm
    else:
        status = "false_positive" if predicted else "absent_ok"
        hd95_mm = assd_mm = math.nan
    voxel_ml = math.prod(spacing) / 1000
    return ClassScore(
        dice=dice(prediction, target),
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        volume_ml=predicted * voxel_ml,
        target_volume_ml=wanted * voxel_ml,
        status=status,
    )


def _surface_distances(prediction: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """HD95 and ASSD in mm of two non-empty masks."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    box = _bounding_box(prediction | target)
    found, wanted = (mask[box][None, None] for mask in (prediction, target))
    with warnings.catch_warnings():
        # MONAI warns about an argument that it passes to itself.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        hd95 = compute_hausdorff_distance(found, wanted, include_background=True, percentile=95, spacing=spacing)
        assd = compute_average_surface_distance(found, wanted, include_background=True, symmetric=True, spacing=spacing)
    return float(hd95), float(assd)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box that holds every true voxel of a mask that has one."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _check(
    prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float], label_names: Mapping[int, str]
) -> None:
    if prediction.shape != target.shape:
        raise InputError(
            f"prediction has shape {prediction.shape} but target has {target.shape}; score both on the target's grid"
        )
    if len(spacing) != target.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise InputError(
            f"spacing must be {target.ndim} positive sizes in mm, one per axis, got {tuple(spacing)}; "
            "take it from the geometry of the target"
        )
    for name, labels in (("prediction", prediction), ("target", target)):
        if labels.dtype.kind not in "iu":
            raise InputError(f"{name} must hold integer classes, got {labels.dtype}; round it or read it as labels")
        known = np.isin(labels, list(label_names))
        if not known.all():
            found = np.unique(labels[~known]).tolist()
            raise InputError(
                f"{name} holds classes {found[:5]} that have no name; known are {sorted(label_names)}: "
                "name them in label_names or remove them"
            )
