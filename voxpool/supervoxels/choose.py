"""Choose how many segments to use from how well they can represent the training labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import to_numpy
from voxpool.supervoxels.blocks import blocks
from voxpool.supervoxels.oracle import oracle_dice
from voxpool.supervoxels.slic import DEFAULT_COMPACTNESS, slic

CANDIDATES = (1000, 2000, 4000, 8000, 12000, 16000, 24000, 32000, 48000)


@dataclass(frozen=True)
class ChosenSegments:
    """How many segments to ask for, and what they can reach on the images they were chosen on.

    Attributes:
        n_segments: Number of segments to ask for.
        compactness: Compactness that was used.
        oracle: Oracle Dice, mean over images of the mean over the foreground classes.
        per_class: Oracle Dice of every class, background first, mean over images; NaN for one in none.
        reached: Whether `oracle` is at least the target; False for the largest candidate when none is.
    """

    n_segments: int
    compactness: float
    oracle: float
    per_class: tuple[float, ...]
    reached: bool = True


def choose_n_segments(
    images: Sequence[Any],
    labels: Sequence[Any],
    *,
    target: float,
    num_classes: int,
    masks: Sequence[Any] | None = None,
    spacings: Sequence[Sequence[float] | None] | None = None,
    method: Literal["slic", "block"] = "slic",
    compactness: float | Sequence[float] = DEFAULT_COMPACTNESS,
    candidates: Sequence[int] = CANDIDATES,
) -> ChosenSegments:
    """Find the smallest number of segments whose mean foreground oracle Dice reaches a target.

    Candidates are tried from the smallest up, each with every compactness, of which the best counts. Give training
    images only: then the choice knows nothing of the cases that a fold holds out.

    Args:
        images: Single-channel images (H, W) or (D, H, W), NumPy or torch.
        labels: Their integer class maps.
        target: Oracle Dice to reach, in (0, 1].
        num_classes: Number of classes, background (0) included; at least 2.
        masks: Their masks, as in `slic`.
        spacings: Their voxel sizes in mm.
        method: "slic" or "block".
        compactness: As in `slic`, or several to choose among; blocks ignore it.
        candidates: Numbers of segments to try.

    Returns:
        The choice; when no candidate reaches the target, the largest one with `reached=False`.

    Raises:
        UsageError: The lists have different lengths, or an argument does not fit.
    """
    count = len(images)
    for name, others in (("labels", labels), ("masks", masks), ("spacings", spacings)):
        if others is not None and len(others) != count:
            raise UsageError(f"{name} must have one entry per image, {count}, got {len(others)}.")
    if not count or not candidates:
        raise UsageError(f"need at least one image and one candidate, got {count} and {len(candidates)}.")
    if not 0 < target <= 1:
        raise UsageError(f"target is an oracle Dice in (0, 1], got {target}.")
    if num_classes < 2:
        raise UsageError(f"num_classes must count the background and at least one class, got {num_classes}.")
    if method not in ("slic", "block"):
        raise UsageError(f"method must be 'slic' or 'block', got {method!r}.")

    weights = [float(weight) for weight in np.atleast_1d(np.asarray(compactness, np.float64))]
    if method == "block":
        weights = weights[:1]
    if not weights:
        raise UsageError("need at least one compactness, got none.")

    def dice(i: int, n_segments: int, weight: float) -> np.ndarray:
        mask = None if masks is None else masks[i]
        spacing = None if spacings is None else spacings[i]
        if method == "block":
            segments = blocks(to_numpy(images[i]).shape, n_segments=n_segments, mask=mask, spacing=spacing)
        else:
            segments = slic(images[i], n_segments, compactness=weight, spacing=spacing, mask=mask)
        return oracle_dice(segments, labels[i], num_classes)

    def measure(n_segments: int, weight: float) -> ChosenSegments:
        scores = np.stack([dice(i, n_segments, weight) for i in range(count)])
        oracle = float(_mean(_mean(scores[:, 1:], axis=1), axis=0))
        per_class = tuple(float(d) for d in _mean(scores, axis=0))
        return ChosenSegments(int(n_segments), weight, oracle, per_class, oracle >= target)

    chosen: ChosenSegments | None = None
    for n_segments in sorted(candidates):
        chosen = max((measure(n_segments, weight) for weight in weights), key=lambda found: found.oracle)
        if chosen.reached:
            break
    assert chosen is not None
    return chosen


def _mean(scores: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the numbers that are not NaN; NaN, without a warning, where there is none."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(axis=axis)
    count = known.sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
