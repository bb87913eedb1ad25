"""choose_n_segments: the smallest candidate whose oracle reaches the target."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from voxpool.errors import UsageError
from voxpool.supervoxels import blocks, choose_n_segments, oracle_dice, slic

CANDIDATES = (400, 30, 120)


def make_cases(count=2):
    rng = np.random.default_rng(0)
    labels = [ndimage.gaussian_filter(rng.standard_normal((20, 22, 24)), 3) > 0.05 for _ in range(count)]
    labels = [a.astype(np.int64) + (ndimage.gaussian_filter(a * 1.0, 2) > 0.8) for a in labels]
    images = [a + 0.2 * rng.standard_normal(a.shape) for a in labels]
    return images, labels


def mean_foreground(segments_of, images, labels):
    return {
        n: np.mean([oracle_dice(segments_of(i, n), a, 3)[1:].mean() for i, a in zip(images, labels, strict=True)])
        for n in sorted(CANDIDATES)
    }


def test_slic_choice_is_the_smallest_that_reaches_the_target():
    images, labels = make_cases()
    oracle = mean_foreground(lambda image, n: slic(image, n, compactness=0.2), images, labels)
    assert oracle[30] < oracle[120] < oracle[400]
    for n, target in [(30, oracle[30]), (120, (oracle[30] + oracle[120]) / 2), (400, oracle[400])]:
        chosen = choose_n_segments(images, labels, target=target, num_classes=3, compactness=0.2, candidates=CANDIDATES)
        assert (chosen.n_segments, chosen.compactness, chosen.reached) == (n, 0.2, True)
        assert chosen.oracle == pytest.approx(oracle[n])
    per_class = np.mean(
        [oracle_dice(slic(i, 400, compactness=0.2), a, 3) for i, a in zip(images, labels, strict=True)], axis=0
    )
    np.testing.assert_allclose(chosen.per_class, per_class)


def test_block_choice_uses_masks_and_spacings():
    images, labels = make_cases(1)
    mask = labels[0] > 0
    chosen = choose_n_segments(
        images,
        labels,
        target=0.01,
        num_classes=3,
        masks=[mask],
        spacings=[(1, 1, 3)],
        method="block",
        candidates=[60],
    )
    segments = blocks(mask.shape, n_segments=60, mask=mask, spacing=(1, 1, 3))
    np.testing.assert_allclose(chosen.per_class, oracle_dice(segments, labels[0], 3))
    assert chosen.oracle == pytest.approx(np.mean(chosen.per_class[1:]))


def test_largest_candidate_when_none_reaches_the_target():
    images, labels = make_cases(1)
    chosen = choose_n_segments(images, labels, target=1, num_classes=3, candidates=CANDIDATES)
    assert (chosen.n_segments, chosen.reached) == (400, False)
    assert chosen.oracle < 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.oracle = 1


def test_a_class_that_one_image_lacks_counts_where_it_is():
    images, labels = make_cases(2)
    labels[1] = np.minimum(labels[1], 1)
    chosen = choose_n_segments(images, labels, target=0.01, num_classes=4, candidates=[120])
    scores = [oracle_dice(slic(i, 120), a, 4) for i, a in zip(images, labels, strict=True)]
    assert chosen.oracle == pytest.approx((scores[0][1:3].mean() + scores[1][1]) / 2)
    assert chosen.per_class[2] == pytest.approx(scores[0][2])
    assert np.isnan(chosen.per_class[3])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": []}, "labels must have one entry per image, 1, got 0"),
        ({"masks": [1, 2]}, "masks must have one entry per image, 1, got 2"),
        ({"spacings": []}, "spacings must have one entry per image, 1, got 0"),
        ({"images": [], "labels": []}, "at least one image and one candidate, got 0"),
        ({"candidates": []}, "at least one image and one candidate, got 1 and 0"),
        ({"target": 1.5}, r"oracle Dice in \(0, 1\], got 1.5"),
        ({"num_classes": 1}, "num_classes must count the background and at least one class, got 1"),
        ({"method": "watershed"}, "method must be 'slic' or 'block', got 'watershed'"),
        ({"labels": [np.zeros((9, 9), int)]}, "same shape"),
    ],
)
def test_bad_arguments_get_one_sentence(changes, sentence):
    arguments = {
        "images": [np.random.default_rng(0).random((8, 8))],
        "labels": [np.zeros((8, 8), int)],
        "target": 0.9,
        "num_classes": 2,
        "candidates": [4],
        **changes,
    }
    with pytest.raises(UsageError, match=sentence):
        choose_n_segments(arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_of_several_compactnesses_the_best_at_the_chosen_number_counts():
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 24, 24), np.int64)
    labels[:, 7:19, 9:14] = 1
    image = labels + 0.05 * rng.standard_normal(labels.shape)
    weights = (1e6, 0.05, 30.0)
    alone = [
        choose_n_segments([image], [labels], target=1.0, num_classes=2, compactness=w, candidates=[40]) for w in weights
    ]
    best = max(alone, key=lambda choice: choice.oracle)
    found = choose_n_segments([image], [labels], target=1.0, num_classes=2, compactness=weights, candidates=[40])
    assert found == best
    assert found.compactness == 0.05
    with pytest.raises(UsageError, match="at least one compactness"):
        choose_n_segments([image], [labels], target=1.0, num_classes=2, compactness=(), candidates=[40])
