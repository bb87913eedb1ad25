"""Oracle labels and oracle Dice against a loop over segments."""

import numpy as np
import pytest
import torch

from voxpool.errors import UsageError
from voxpool.supervoxels import oracle_dice, oracle_labels


def slow_labels(segments, labels, num_classes):
    out = np.zeros_like(labels)
    for k in range(segments.max() + 1):
        inside = segments == k
        if inside.any():
            counts = [(labels[inside] == c).sum() for c in range(num_classes)]
            out[inside] = counts.index(max(counts))
    return out


def slow_dice(prediction, labels, num_classes):
    scores = []
    for c in range(num_classes):
        total = (prediction == c).sum() + (labels == c).sum()
        scores.append(2 * ((prediction == c) & (labels == c)).sum() / total if total else np.nan)
    return scores


@pytest.mark.parametrize("shape", [(40,), (9, 11), (6, 7, 8), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_oracle_equals_a_loop_over_segments(shape, dtype):
    rng = np.random.default_rng(1)
    segments = rng.integers(-1, 12, shape).astype(np.int32)
    segments[segments == 5] = 6  # an id without voxels
    labels = rng.choice([0, 1, 2, 4], shape).astype(dtype)
    found = oracle_labels(segments, labels, 6)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, slow_labels(segments, labels, 6))
    np.testing.assert_allclose(oracle_dice(segments, labels, 6), slow_dice(found, labels, 6), rtol=1e-15)


def test_ties_go_to_the_lowest_class_and_outside_is_background():
    segments = np.array([0, 0, 1, 1, 1, -1, -1])
    labels = np.array([2, 1, 3, 0, 3, 3, 3])
    assert oracle_labels(segments, labels, 4).tolist() == [1, 1, 3, 3, 3, 0, 0]
    np.testing.assert_allclose(oracle_dice(segments, labels, 4), [0, 2 / 3, 0, 2 * 2 / (3 + 4)])


def test_segments_that_never_cross_a_border_are_perfect():
    labels = np.random.default_rng(0).integers(0, 3, (8, 8))
    segments = np.arange(64).reshape(8, 8)
    np.testing.assert_array_equal(oracle_labels(segments, labels, 3), labels)
    assert oracle_dice(segments, labels, 4)[:3].tolist() == [1, 1, 1]
    assert np.isnan(oracle_dice(segments, labels, 4)[3])


def test_everything_outside_predicts_background():
    labels = np.array([[0, 1], [1, 1]])
    np.testing.assert_array_equal(oracle_labels(np.full((2, 2), -1), labels, 2), np.zeros((2, 2)))
    np.testing.assert_allclose(oracle_dice(np.full((2, 2), -1), labels, 2), [2 / 5, 0])


def test_torch_in_torch_out():
    segments, labels = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 0], dtype=torch.uint8)
    found = oracle_labels(segments, labels, 2)
    assert found.dtype == torch.uint8
    assert found.tolist() == [1, 1, 1]
    assert oracle_dice(segments, labels, 2).tolist() == [0, 0.8]


@pytest.mark.parametrize(
    ("segments", "labels", "num_classes", "sentence"),
    [
        (np.zeros(3, int), np.zeros(4, int), 2, r"same shape, got \(3,\) and \(4,\)"),
        (np.zeros(3), np.zeros(3, int), 2, "segments must hold integers, got float64"),
        (np.zeros(3, int), np.zeros(3), 2, "labels must hold integers, got float64"),
        (np.full(3, -2), np.zeros(3, int), 2, "segments must be -1 or more, got -2"),
        (
            np.zeros(3, int),
            np.full(3, 2),
            2,
            r"labels must lie in 0..1 for num_classes=2, got values from 2 to 2",
        ),
        (np.zeros(3, int), np.full(3, -1), 2, "labels must lie in 0..1"),
        (np.zeros(3, int), np.zeros(3, int), 0, "num_classes must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("function", [oracle_labels, oracle_dice])
def test_bad_arguments_get_one_sentence(function, segments, labels, num_classes, sentence):
    with pytest.raises(UsageError, match=sentence):
        function(segments, labels, num_classes)
