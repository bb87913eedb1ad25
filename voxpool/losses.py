"""Training losses, on voxels and, where every supervoxel has one score, on supervoxels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxpool.errors import UsageError

DICE_SMOOTHING = 1.0


def dice_cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean soft Dice of the foreground classes of a batch.

    Computed in float32, or float64 for scores of that type. The Dice term counts over the whole batch, so that a
    class that a crop lacks does not swing it.

    Args:
        scores: Class scores, (N, num_classes, *S).
        target: Class ids, (N, *S), int64.

    Returns:
        Scalar loss.
    """
    log_probabilities = F.log_softmax(_wide(scores), dim=1)
    cross_entropy = F.nll_loss(log_probabilities, target)
    probabilities = log_probabilities.exp()  # (N, num_classes, *S)
    hot = torch.zeros_like(probabilities).scatter_(1, target.unsqueeze(1), 1.0)
    over = [0, *range(2, scores.ndim)]
    overlap = (probabilities * hot).sum(over)
    return cross_entropy + _dice_loss(overlap, probabilities.sum(over) + hot.sum(over))


def segment_dice_cross_entropy(scores: Tensor, histogram: Tensor) -> Tensor:
    """The loss `dice_cross_entropy(segment_unpool(scores, segments), target)` from supervoxels alone.

    All voxels of a supervoxel have the same scores, so each term is a sum over supervoxels, weighted by how many of
    its voxels are of each class; voxels with id -1 share scores of zero. Equal to the loss on voxels but for the
    order of additions.

    Args:
        scores: Class scores of supervoxels, (N, num_classes, K).
        histogram: What `segment_histogram` counts in target and segments, (N, num_classes, K + 1).

    Returns:
        Scalar loss.

    Raises:
        UsageError: If the shapes do not fit.
    """
    columns = _columns(_wide(scores), histogram)  # (N, num_classes, K + 1)
    counts = histogram.to(columns.dtype)
    log_probabilities = F.log_softmax(columns, dim=1)
    # a score of -inf for a class without voxels costs nothing, but 0 * inf would be NaN
    cost = torch.where(histogram > 0, counts * log_probabilities, 0.0)
    cross_entropy = -cost.sum() / counts.sum()
    probabilities = log_probabilities.exp()
    over = (0, 2)
    overlap = (probabilities * counts).sum(over)
    sizes = (probabilities * counts.sum(1, keepdim=True)).sum(over) + counts.sum(over)
    return cross_entropy + _dice_loss(overlap, sizes)


def foreground_dice(scores: Tensor, target: Tensor) -> float:
    """Mean Dice of the foreground classes that a batch holds or predicts, from the highest scores; for progress."""
    prediction = scores.argmax(1)
    overlaps, sizes = [], []
    for label in range(1, scores.shape[1]):
        predicted, true = prediction == label, target == label
        overlaps.append(int((predicted & true).sum()))
        sizes.append(int(predicted.sum() + true.sum()))
    return _mean_dice(overlaps, sizes)


def segment_foreground_dice(scores: Tensor, histogram: Tensor) -> float:
    """The score `foreground_dice(segment_unpool(scores, segments), target)` from supervoxels alone.

    Args:
        scores: Class scores of supervoxels, (N, num_classes, K).
        histogram: What `segment_histogram` counts in target and segments, (N, num_classes, K + 1).

    Returns:
        Mean Dice, the same number; NaN where the batch neither holds nor predicts a foreground class.

    Raises:
        UsageError: If the shapes do not fit.
    """
    prediction = _columns(scores, histogram).argmax(1)  # (N, K + 1)
    hot = F.one_hot(prediction, scores.shape[1]).movedim(-1, 1)  # (N, num_classes, K + 1)
    overlaps = (hot * histogram).sum((0, 2))
    sizes = (hot * histogram.sum(1, keepdim=True)).sum((0, 2)) + histogram.sum((0, 2))
    return _mean_dice(overlaps[1:].tolist(), sizes[1:].tolist())


def _wide(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _columns(scores: Tensor, histogram: Tensor) -> Tensor:
    """Scores with a column of zeros for the voxels of no supervoxel; what an empty one scores does not count."""
    wanted = (*scores.shape[:2], scores.shape[2] + 1) if scores.ndim == 3 else None
    if wanted is None or histogram.shape != wanted:
        raise UsageError(
            "scores must have shape (N, num_classes, K) and histogram (N, num_classes, K + 1), "
            f"got {tuple(scores.shape)} and {tuple(histogram.shape)}"
        )
    empty = histogram.sum(1, keepdim=True) == 0
    return F.pad(scores, (0, 1)).masked_fill(empty, 0)


def _dice_loss(overlap: Tensor, sizes: Tensor) -> Tensor:
    """One minus the mean Dice of the classes after the first, from sums (num_classes,)."""
    dice = (2 * overlap + DICE_SMOOTHING) / (sizes + DICE_SMOOTHING)
    return 1 - dice[1:].mean()


def _mean_dice(overlaps: list[int], sizes: list[int]) -> float:
    dice = [2 * overlap / size for overlap, size in zip(overlaps, sizes, strict=True) if size]
    return sum(dice) / len(dice) if dice else float("nan")
