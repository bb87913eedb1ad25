"""Losses: by hand, and on supervoxels equal to those on the voxels painted from them."""

import math

import pytest
import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.losses import (
    dice_cross_entropy,
    foreground_dice,
    segment_dice_cross_entropy,
    segment_foreground_dice,
)
from voxpool.ops import segment_histogram, segment_unpool

CLASSES, K, EMPTY = 4, 9, 6


def _case(seed: int, *, ignored: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (2, CLASSES, K) float64, target and segments (2, 6, 5, 4); supervoxel EMPTY has no voxel."""
    rng = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn((2, CLASSES, K), generator=rng, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (2, 6, 5, 4), generator=rng)
    segments = torch.randint(-1 if ignored else 0, K, (2, 6, 5, 4), generator=rng)
    segments[segments == EMPTY] = 0
    return scores, target, segments


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_supervoxels_give_the_loss_and_gradient_of_their_voxels(seed: int, ignored: bool) -> None:
    scores, target, segments = _case(seed, ignored=ignored)
    counts = segment_histogram(target, segments, K, CLASSES)
    by_voxel, by_segment = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    wanted = dice_cross_entropy(segment_unpool(by_voxel, segments), target)
    found = segment_dice_cross_entropy(by_segment, counts)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    wanted.backward()
    found.backward()
    torch.testing.assert_close(by_segment.grad, by_voxel.grad, rtol=1e-10, atol=1e-14)
    assert not by_segment.grad[:, :, EMPTY].any()


@pytest.mark.parametrize("seed", range(4))
def test_supervoxels_give_the_dice_of_their_voxels(seed: int) -> None:
    scores, target, segments = _case(seed)
    scores[:, 2] -= 20  # a class that is never predicted
    target[target == 3] = 1  # and one that does not occur
    counts = segment_histogram(target, segments, K, CLASSES)
    assert segment_foreground_dice(scores, counts) == foreground_dice(segment_unpool(scores, segments), target)


def test_the_dice_of_background_alone_is_unknown() -> None:
    segments = torch.tensor([[0, 0, 1, -1]])
    counts = segment_histogram(torch.zeros_like(segments), segments, 2, 3)
    assert math.isnan(segment_foreground_dice(torch.tensor([[[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]]), counts))


def test_the_gradient_is_that_of_the_loss() -> None:
    scores, target, segments = _case(5)
    counts = segment_histogram(target, segments, K, CLASSES)
    assert torch.autograd.gradcheck(lambda s: segment_dice_cross_entropy(s, counts), scores.requires_grad_())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_an_empty_supervoxel_scores_does_not_matter(value: float) -> None:
    scores, target, segments = _case(6)
    counts = segment_histogram(target, segments, K, CLASSES)
    spoiled = scores.clone()
    spoiled[:, :, EMPTY] = value
    spoiled.requires_grad_()
    found = segment_dice_cross_entropy(spoiled, counts)
    assert found == segment_dice_cross_entropy(scores, counts)
    found.backward()
    assert spoiled.grad.isfinite().all()
    assert segment_foreground_dice(spoiled, counts) == segment_foreground_dice(scores, counts)


def test_an_impossible_class_costs_nothing_where_it_does_not_occur() -> None:
    scores, target, segments = _case(7)
    target[(segments == 3) & (target == 2)] = 1
    scores[:, 2, 3] = -math.inf
    counts = segment_histogram(target, segments, K, CLASSES)
    by_voxel, by_segment = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    wanted = dice_cross_entropy(segment_unpool(by_voxel, segments), target)
    found = segment_dice_cross_entropy(by_segment, counts)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    wanted.backward()
    found.backward()
    assert by_voxel.grad.isfinite().all()
    torch.testing.assert_close(by_segment.grad, by_voxel.grad, rtol=1e-10, atol=1e-14)


def test_half_precision_is_judged_in_float32() -> None:
    scores, target, segments = _case(8)
    counts = segment_histogram(target, segments, K, CLASSES)
    half = scores.bfloat16()
    assert segment_dice_cross_entropy(half, counts).dtype == torch.float32
    assert dice_cross_entropy(half[..., :1].expand(-1, -1, 3), target[:, :3, 0, 0]).dtype == torch.float32
    wanted = dice_cross_entropy(segment_unpool(half, segments), target)
    torch.testing.assert_close(segment_dice_cross_entropy(half, counts), wanted, rtol=1e-5, atol=0)


def test_the_loss_by_hand() -> None:
    # two voxels in supervoxel 0, one in none; two classes
    segments, target = torch.tensor([[0, 0, -1]]), torch.tensor([[1, 0, 1]])
    scores = torch.tensor([[[0.0], [math.log(3)]]], dtype=torch.float64)  # class 1 has probability 3/4
    cross_entropy = -(math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 2)) / 3
    dice = (2 * (3 / 4 + 1 / 2) + 1) / (3 / 4 + 3 / 4 + 1 / 2 + 2 + 1)
    found = segment_dice_cross_entropy(scores, segment_histogram(target, segments, 1, 2))
    assert float(found) == pytest.approx(cross_entropy + 1 - dice, rel=1e-12)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match=r"got \(1, 2, 3\) and \(1, 2, 3\)"):
        segment_dice_cross_entropy(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"got \(1, 2, 3, 3\) and"):
        segment_foreground_dice(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 4, dtype=torch.int64))
