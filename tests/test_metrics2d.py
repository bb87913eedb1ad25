"""Scores from a confusion matrix: by their definitions, and as Cityscapes' own program gives them."""

import numpy as np
import pytest

from voxpool.errors import UsageError
from voxpool.metrics2d import CITYSCAPES, CityscapesScores, confusion_matrix, score_matrix

INSTANCES = [label.id for label in CITYSCAPES if label.instances]
SHAPE = (96, 128)


def enlarged(blocks, side):
    return np.kron(blocks, np.ones((side, side), int))[: SHAPE[0], : SHAPE[1]]


def maps(seed):
    """Blocks of labels with instances and crowds, and a prediction of which a third is other blocks."""
    rng = np.random.default_rng(seed)

    def blocks(side):
        return enlarged(rng.integers(0, 34, (-(-SHAPE[0] // side), -(-SHAPE[1] // side))), side)

    target = blocks(8)
    number = enlarged(rng.integers(0, 4, (-(-SHAPE[0] // 16), -(-SHAPE[1] // 16))), 16)
    crowd = enlarged(rng.random((-(-SHAPE[0] // 32), -(-SHAPE[1] // 32))) < 0.15, 32).astype(bool)
    instances = np.where(np.isin(target, INSTANCES) & ~crowd, 1000 * target + number, target)
    wrong = rng.random(SHAPE) < 0.35
    return target, instances, np.where(wrong, blocks(4), target)


# cityscapesScripts 2.3.0, evaluateImgLists, over the maps of the seeds 0, 1 and 2
CLASS = {
    "road": 0.5571878279,
    "sidewalk": 0.5655120482,
    "building": 0.5515288788,
    "wall": 0.5619834711,
    "fence": 0.5911517925,
    "pole": 0.6103509816,
    "traffic light": 0.5380434783,
    "traffic sign": 0.5337941628,
    "vegetation": 0.5778401122,
    "terrain": 0.5078060805,
    "sky": 0.5781954887,
    "person": 0.5609981516,
    "rider": 0.5251851852,
    "car": 0.5908209438,
    "truck": 0.5392523364,
    "bus": 0.5930232558,
    "train": 0.4748822606,
    "motorcycle": 0.5730258560,
    "bicycle": 0.5805243446,
}
CATEGORY = {
    "flat": 0.5675318962,
    "construction": 0.5916666667,
    "object": 0.5973053892,
    "nature": 0.5615443425,
    "sky": 0.5781954887,
    "human": 0.5551867220,
    "vehicle": 0.6483858906,
}
CLASS_INSTANCES = {
    "person": 0.6785723214,
    "rider": 0.6497018687,
    "car": 0.6742387081,
    "truck": 0.6479877529,
    "bus": 0.6580358043,
    "train": 0.6231732414,
    "motorcycle": 0.6818468587,
    "bicycle": 0.6758605642,
}
CATEGORY_INSTANCES = {"human": 0.6729039032, "vehicle": 0.7086428216}


def test_cityscapes_scores_are_those_of_its_own_program():
    scores = CityscapesScores()
    for seed in range(3):
        scores.add(*maps(seed))
    for found, want in (
        (scores.class_iou(), CLASS),
        (scores.category_iou(), CATEGORY),
        (scores.class_iiou(), CLASS_INSTANCES),
        (scores.category_iiou(), CATEGORY_INSTANCES),
    ):
        assert found == pytest.approx(want, abs=1e-9)


def test_all_instances_of_the_mean_size_weigh_as_pixels_do():
    """Instance weighting is about size alone: with equal sizes iIoU misses and hits as IoU does."""
    target = np.zeros((40, 40), int)
    target[:20] = 26
    instances = target.copy()
    instances[:20, :20], instances[:20, 20:] = 26001, 26002
    prediction = np.where(np.random.default_rng(0).random(target.shape) < 0.3, 7, target)
    scores = CityscapesScores()
    scores.add(target, instances, prediction)
    assert scores.class_iiou()["car"] == pytest.approx(scores.class_iou()["car"])


def test_a_crowd_is_no_instance_and_an_ignored_object_counts_nowhere():
    target = np.full((10, 10), 24)
    target[5:] = 29  # caravan: told apart, not scored
    scores = CityscapesScores()
    scores.add(target, np.where(target == 29, 29001, target), np.full((10, 10), 24))
    assert np.isnan(scores.class_iiou()["person"])
    assert scores.class_iou()["person"] == 1.0, "what is not scored is no false positive"
    assert scores.category_iou()["human"] == 1.0


def test_scores_follow_their_definitions():
    rng = np.random.default_rng(1)
    target, prediction = rng.integers(0, 5, (60, 70)), rng.integers(0, 5, (60, 70))
    target[:9] = 255
    matrix = confusion_matrix(target, prediction, 7, ignore=255)
    assert matrix.sum() == 51 * 70
    scores = score_matrix(matrix)
    kept = target != 255
    for label in range(5):
        true, found = (target == label) & kept, (prediction == label) & kept
        assert scores.iou[label] == pytest.approx((true & found).sum() / (true | found).sum())
        assert scores.dice[label] == pytest.approx(2 * (true & found).sum() / (true.sum() + found.sum()))
        assert scores.sensitivity[label] == pytest.approx((true & found).sum() / true.sum())
    assert np.isnan(scores.iou[5:]).all(), "classes that are nowhere have no score"
    assert scores.mean_iou == pytest.approx(scores.iou[:5].mean())
    assert scores.mean_dice == pytest.approx(np.mean(2 * scores.iou[:5] / (1 + scores.iou[:5])))
    assert scores.mean_accuracy == pytest.approx(scores.sensitivity[:5].mean())
    assert scores.pixel_accuracy == pytest.approx((target == prediction)[kept].mean())


def test_matrices_of_images_add_up_and_nothing_scores_nothing():
    rng = np.random.default_rng(2)
    target, prediction = rng.integers(0, 3, (2, 20, 20)), rng.integers(0, 3, (2, 20, 20))
    parts = sum(confusion_matrix(t, p, 3) for t, p in zip(target, prediction, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(target, prediction, 3))
    empty = score_matrix(confusion_matrix(np.full(4, 255), np.zeros(4, int), 3, ignore=255))
    assert np.isnan(empty.mean_iou)
    assert np.isnan(empty.pixel_accuracy)


def test_mistakes_are_sentences():
    ones = np.ones((3, 3), int)
    with pytest.raises(UsageError, match="one shape"):
        confusion_matrix(ones, ones[:2], 2)
    with pytest.raises(UsageError, match="the target holds classes 1 to 1, wanted 0 to 0"):
        confusion_matrix(ones, ones, 1)
    with pytest.raises(UsageError, match="target and instances"):
        CityscapesScores().add(ones, ones[:2], ones)
