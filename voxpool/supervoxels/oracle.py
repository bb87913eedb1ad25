"""Oracle labels: what a perfect classifier of whole segments could reach at best."""

from typing import Any

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import like, to_numpy


def oracle_labels(segments: Any, labels: Any, num_classes: int) -> Any:
    """Give every segment its majority label.

    Determinism: counts are integers; of classes with equal counts the lowest wins.

    Args:
        segments: Segment ids 0..K-1, any shape, NumPy or torch; -1 is outside the mask.
        labels: Integer class map of the same shape, values 0..num_classes-1.
        num_classes: Number of classes, background included.

    Returns:
        Class map of the shape and type of `labels`, NumPy or torch as `labels`; 0 where `segments` is -1.

    Raises:
        UsageError: Shapes differ, or a value is outside its range.
    """
    ids, classes = _checked(segments, labels, num_classes)
    majority = _majority(_count(ids, classes, num_classes))
    return like(majority[ids + 1].astype(classes.dtype), labels)


def oracle_dice(segments: Any, labels: Any, num_classes: int) -> np.ndarray:
    """Dice of the oracle labels, an upper bound for a network that labels whole segments.

    Args:
        segments: Segment ids 0..K-1, any shape, NumPy or torch; -1 counts as predicted background.
        labels: Integer class map of the same shape, values 0..num_classes-1.
        num_classes: Number of classes, background included.

    Returns:
        (num_classes,) float64, background first; NaN for a class that neither labels nor oracle labels hold.

    Raises:
        UsageError: Shapes differ, or a value is outside its range.
    """
    ids, classes = _checked(segments, labels, num_classes)
    counts = _count(ids, classes, num_classes)
    majority = _majority(counts)
    rows = np.arange(len(counts))
    hits = np.bincount(majority, weights=counts[rows, majority], minlength=num_classes)
    predicted = np.bincount(majority, weights=counts.sum(axis=1), minlength=num_classes)
    total = predicted + counts.sum(axis=0)
    return np.divide(2 * hits, total, out=np.full(num_classes, np.nan), where=total > 0)


def _majority(counts: np.ndarray) -> np.ndarray:
    """Most frequent class of each row, the lowest of equals; background for row 0, the voxels without segment."""
    majority = counts.argmax(axis=1)
    majority[0] = 0
    return majority


def _checked(segments: Any, labels: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    ids, classes = to_numpy(segments), to_numpy(labels)
    if ids.shape != classes.shape:
        raise UsageError(f"segments and labels must have the same shape, got {ids.shape} and {classes.shape}.")
    for name, array in (("segments", ids), ("labels", classes)):
        if array.dtype.kind not in "iu":
            raise UsageError(f"{name} must hold integers, got {array.dtype}.")
    if num_classes < 1:
        raise UsageError(f"num_classes must be at least 1, got {num_classes}.")
    if ids.size and ids.min() < -1:
        raise UsageError(f"segments must be -1 or more, got {ids.min()}.")
    if classes.size and not (classes.min() >= 0 and classes.max() < num_classes):
        raise UsageError(
            f"labels must lie in 0..{num_classes - 1} for num_classes={num_classes}, "
            f"got values from {classes.min()} to {classes.max()}."
        )
    return ids.astype(np.int64), classes


def _count(ids: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """(K + 1, num_classes) voxel counts; row 0 is everything outside the segments."""
    rows = int(ids.max(initial=-1)) + 2
    pairs = (ids + 1) * num_classes + classes.astype(np.int64)
    return np.bincount(pairs.ravel(), minlength=rows * num_classes).reshape(rows, num_classes)
