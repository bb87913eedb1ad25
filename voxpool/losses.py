"""Training losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

DICE_SMOOTHING = 1.0


def dice_cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean soft Dice of the foreground classes of a batch.

    Computed in float32 whatever the dtype of the scores. The Dice term counts over the whole batch, so that a class
    that a crop lacks does not swing it.

    Args:
        scores: Class scores, (N, num_classes, *S).
        target: Class ids, (N, *S), int64.

    Returns:
        Scalar loss.
    """
    log_probabilities = F.log_softmax(scores.float(), dim=1)
    cross_entropy = F.nll_loss(log_probabilities, target)
    probabilities = log_probabilities.exp()  # (N, num_classes, *S)
    hot = torch.zeros_like(probabilities).scatter_(1, target.unsqueeze(1), 1.0)
    over = [0, *range(2, scores.ndim)]
    overlap = (probabilities * hot).sum(over)
    sizes = probabilities.sum(over) + hot.sum(over)
    dice = (2 * overlap + DICE_SMOOTHING) / (sizes + DICE_SMOOTHING)
    return cross_entropy + 1 - dice[1:].mean()


def foreground_dice(scores: Tensor, target: Tensor) -> float:
    """Mean Dice of the foreground classes that a batch holds or predicts, from the highest scores; for progress."""
    prediction = scores.argmax(1)
    dice = []
    for label in range(1, scores.shape[1]):
        predicted, true = prediction == label, target == label
        total = int(predicted.sum() + true.sum())
        if total:
            dice.append(2 * int((predicted & true).sum()) / total)
    return sum(dice) / len(dice) if dice else float("nan")
