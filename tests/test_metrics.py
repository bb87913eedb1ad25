"""The scores, against references that share no code with them."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from voxpool.errors import InputError
from voxpool.metrics import ClassScore, dice, dice_background, foreground_dice, score_case

NAMES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}


def blob(shape: tuple[int, ...], seed: int, share: float = 0.3) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 1 - share)


def surface_distances(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Distances from each mask's boundary voxels to the other's, by transforms of the whole image."""
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=0) for mask in (one, other)]
    maps = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return [maps[1][edges[0]], maps[0][edges[1]]]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 1.5, 2.7)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_surface_distances_equal_distance_transforms(seed: int, spacing: tuple[float, ...]) -> None:
    target = blob((22, 18, 15), seed)
    prediction = blob((22, 18, 15), seed) ^ blob((22, 18, 15), seed + 10, 0.05)
    score = score_case(
        prediction.astype(np.uint8),
        target.astype(np.int64),
        spacing=spacing,
        label_names={0: "BG", 1: "head"},
    )["head"]
    distances = surface_distances(prediction, target, spacing)
    assert score.hd95_mm == pytest.approx(max(np.percentile(each, 95) for each in distances), rel=1e-5)
    assert score.assd_mm == pytest.approx(np.concatenate(distances).mean(), rel=1e-5)
    assert score.hd95_mm > 0


def test_in_two_dimensions() -> None:
    target, prediction = blob((30, 25), 3), blob((30, 25), 3) ^ blob((30, 25), 4, 0.05)
    score = score_case(
        prediction.astype(int), target.astype(int), spacing=(0.5, 2.0), label_names={0: "BG", 1: "disc"}
    )["disc"]
    distances = surface_distances(prediction, target, (0.5, 2.0))
    assert score.hd95_mm == pytest.approx(max(np.percentile(each, 95) for each in distances), rel=1e-5)
    assert score.volume_ml == pytest.approx(prediction.sum() / 1000)


def test_a_class_that_fills_the_image_ends_at_its_edge() -> None:
    target = np.ones((6, 6, 6), int)
    prediction = target.copy()
    prediction[0] = 0
    score = score_case(prediction, target, spacing=(2.0, 1.0, 1.0), label_names={0: "BG", 1: "all"})["all"]
    # Without an edge at the image's border the full target would have no boundary at all.
    distances = surface_distances(prediction == 1, target == 1, (2.0, 1.0, 1.0))
    assert score.hd95_mm == pytest.approx(2.0)
    assert score.assd_mm == pytest.approx(np.concatenate(distances).mean(), rel=1e-6)


def test_two_single_voxels() -> None:
    target, prediction = np.zeros((2, 9, 9, 9), np.int16)
    target[2, 2, 2] = 2
    prediction[5, 6, 2] = 2
    score = score_case(prediction, target, spacing=(1.0, 1.0, 3.0), label_names=NAMES)["GM"]
    assert score == ClassScore(0.0, 5.0, 5.0, pytest.approx(0.003), pytest.approx(0.003), "ok")


def test_equals_monai_on_the_whole_image() -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    target = blob((20, 21, 22), 7).astype(int) * 2 + (blob((20, 21, 22), 8, 0.1) & ~blob((20, 21, 22), 7))
    prediction = np.roll(target, (1, 0, -1), axis=(0, 1, 2))
    hot = [np.stack([labels == label for label in range(3)])[None] for labels in (prediction, target)]
    found, wanted = (torch.from_numpy(each).float() for each in hot)
    spacing = (1.2, 0.8, 1.0)
    names = {0: "BG", 1: "a", 2: "b"}
    scores = score_case(prediction, target, spacing=spacing, label_names=names)
    references = {
        "dice": compute_dice(found, wanted, include_background=True, ignore_empty=False)[0],
        "hd95_mm": compute_hausdorff_distance(found, wanted, include_background=True, percentile=95, spacing=spacing)[
            0
        ],
        "assd_mm": compute_average_surface_distance(
            found, wanted, include_background=True, symmetric=True, spacing=spacing
        )[0],
    }
    for label, name in ((1, "a"), (2, "b")):
        for measure, values in references.items():
            assert getattr(scores[name], measure) == pytest.approx(values[label].item(), rel=1e-5)
    assert dice_background(prediction, target) == pytest.approx(references["dice"][0].item(), rel=1e-6)


def test_the_missing_value_policy() -> None:
    names = {0: "BG", 1: "absent", 2: "invented", 3: "lost", 4: "found"}
    target, prediction = np.zeros((2, 10, 20, 30), np.int32)
    prediction[0, 0, :4] = 2
    target[3, 3, :5] = 3
    target[6, 6, :8] = prediction[6, 6, 4:12] = 0
    target[6, 6, :8] = 4
    prediction[6, 6, 4:12] = 4
    scores = score_case(prediction, target, spacing=(3.0, 2.0, 1.0), label_names=names)
    assert list(scores) == ["absent", "invented", "lost", "found"]

    assert scores["absent"].status == "absent_ok"
    assert all(math.isnan(value) for value in dataclasses.astuple(scores["absent"])[:3])

    assert scores["invented"].status == "false_positive"
    assert scores["invented"].dice == 0
    assert math.isnan(scores["invented"].hd95_mm)
    assert math.isnan(scores["invented"].assd_mm)
    assert scores["invented"].volume_ml == pytest.approx(4 * 6 / 1000)
    assert scores["invented"].target_volume_ml == 0

    diagonal = math.sqrt(30.0**2 + 40.0**2 + 30.0**2)
    assert scores["lost"].status == "missed"
    assert scores["lost"].dice == 0
    assert scores["lost"].hd95_mm == scores["lost"].assd_mm == pytest.approx(diagonal)
    assert scores["lost"].volume_ml == 0
    assert scores["lost"].target_volume_ml == pytest.approx(5 * 6 / 1000)

    assert scores["found"].status == "ok"
    assert scores["found"].dice == pytest.approx(2 * 4 / 16)
    assert scores["found"].hd95_mm == pytest.approx(4.0, abs=0.7)

    # The absent class is left out of the mean, the others count, the failed ones as 0.
    assert foreground_dice(scores) == pytest.approx((0 + 0 + 0.5) / 3)


def test_nothing_to_average() -> None:
    empty = np.zeros((4, 4, 4), int)
    assert math.isnan(foreground_dice(score_case(empty, empty, spacing=(1, 1, 1), label_names=NAMES)))
    assert dice_background(empty, empty) == 1
    assert math.isnan(dice_background(empty + 1, empty + 1))


def test_dice_by_hand() -> None:
    one = np.array([True, True, True, False, False])
    other = np.array([False, True, True, True, True])
    assert dice(one, other) == pytest.approx(4 / 7)
    assert dice(one, one) == 1
    assert dice(one, ~one) == 0


def test_scores_are_plain_floats() -> None:
    labels = np.ones((3, 3, 3), np.uint8)
    score = score_case(labels, labels, spacing=np.ones(3), label_names={0: "BG", 1: "x"})["x"]
    assert [type(value) for value in dataclasses.astuple(score)] == [float] * 5 + [str]


def test_a_silent_library(recwarn: pytest.WarningsRecorder) -> None:
    labels = blob((8, 8, 8), 0).astype(int)
    score_case(labels, np.roll(labels, 1, 0), spacing=(1, 1, 1), label_names={0: "BG", 1: "x"})
    score_case(labels * 0, labels, spacing=(1, 1, 1), label_names={0: "BG", 1: "x"})
    assert not [str(each.message) for each in recwarn]


@pytest.mark.parametrize(
    ("prediction", "spacing", "wanted"),
    [
        (np.zeros((3, 3, 4), int), (1, 1, 1), r"shape \(3, 3, 4\) but target has \(3, 3, 3\)"),
        (np.zeros((3, 3, 3)), (1, 1, 1), "prediction must hold integer classes, got float64"),
        (np.full((3, 3, 3), 9), (1, 1, 1), r"prediction holds classes \[9\] that have no name"),
        (np.zeros((3, 3, 3), int), (1, 1), "spacing must be 3 positive sizes"),
        (np.zeros((3, 3, 3), int), (1, 0, 1), "spacing must be 3 positive sizes"),
        (np.zeros((3, 3, 3), int), (1, math.nan, 1), "spacing must be 3 positive sizes"),
    ],
)
def test_bad_input(prediction: np.ndarray, spacing: tuple[float, ...], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        score_case(prediction, np.zeros((3, 3, 3), int), spacing=spacing, label_names=NAMES)


def test_importing_the_metrics_does_not_load_monai() -> None:
    code = "import sys, voxpool.metrics; print(sorted({'monai', 'torch'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert answer.stdout.strip() == "[]"
