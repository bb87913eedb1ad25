"""Measures of segments against brute force, closed forms and identities."""

import numpy as np
import pytest
import torch

from voxpool.errors import UsageError
from voxpool.supervoxels import measure_segments, oracle_labels
from voxpool.supervoxels.quality import achievable_accuracy, boundary_recall, compactness, explained_variation


@pytest.fixture(params=[(9, 13), (5, 6, 7)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = request.param
    return rng.integers(-1, 12, shape), rng.integers(0, 4, shape), rng.normal(size=shape)


def test_accuracy_is_that_of_the_oracle_labels(case: tuple[np.ndarray, ...]) -> None:
    segments, labels, _ = case
    inside = segments >= 0
    painted = oracle_labels(segments, labels, 4)
    assert achievable_accuracy(segments, labels) == (painted == labels)[inside].mean()
    assert achievable_accuracy(segments, labels * 1000 - 7) == (painted == labels)[inside].mean()


def test_undersegmentation_error_counts_the_smaller_side_of_every_segment(case: tuple[np.ndarray, ...]) -> None:
    segments, labels, _ = case
    outside = 0
    for k in range(12):
        members = labels[segments == k]
        outside += min(np.count_nonzero(members != c) for c in range(4))
    found = measure_segments(segments, labels=labels).undersegmentation_error
    assert found == pytest.approx(outside / np.count_nonzero(segments >= 0), abs=1e-15)


def test_variation_within_and_between_segments_is_all_of_it(case: tuple[np.ndarray, ...]) -> None:
    segments, _, image = case
    inside = segments >= 0
    within = sum(((image[segments == k] - image[segments == k].mean()) ** 2).sum() for k in range(12))
    whole = ((image[inside] - image[inside].mean()) ** 2).sum()
    assert explained_variation(segments, image) == pytest.approx(1 - within / whole, abs=1e-12)


def test_voxels_of_their_own_explain_all_and_one_segment_nothing(case: tuple[np.ndarray, ...]) -> None:
    _, labels, image = case
    own = np.arange(image.size).reshape(image.shape)
    assert explained_variation(own, image) == pytest.approx(1)
    assert explained_variation(np.zeros_like(own), image) == pytest.approx(0, abs=1e-20)
    assert achievable_accuracy(own, labels) == 1
    assert np.isnan(explained_variation(own, np.ones(image.shape)))


def brute_boundary(labels: np.ndarray) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    for place in np.ndindex(*labels.shape):
        for axis, step in np.ndindex(labels.ndim, 2):
            other = list(place)
            other[axis] += 2 * step - 1
            if 0 <= other[axis] < labels.shape[axis]:
                found[place] |= labels[tuple(other)] != labels[place]
    return found


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_recall_by_brute_force(case: tuple[np.ndarray, ...], radius: int) -> None:
    segments, labels, _ = case
    segments, labels = segments // 6, (labels > 2).astype(int)
    near, true = brute_boundary(segments), brute_boundary(labels)
    hits = 0
    for place in zip(*np.nonzero(true), strict=True):
        window = tuple(slice(max(0, p - radius), p + radius + 1) for p in place)
        hits += near[window].any()
    assert boundary_recall(segments, labels, radius) == hits / true.sum()
    assert boundary_recall(segments, np.zeros_like(labels)) == 1


def test_the_default_radius_is_a_share_of_the_diagonal() -> None:
    labels = np.zeros((1200, 1600), int)  # diagonal 2000, radius 5
    labels[:, 800:] = 1
    for away, expected in ((5, 1.0), (8, 0.0)):
        segments = np.zeros_like(labels)
        segments[:, 800 + away :] = 1
        assert boundary_recall(segments, labels) == expected


@pytest.mark.parametrize(("edges", "spacing"), [((4, 4), None), ((4, 4, 4), None), ((2, 4, 8), (4.0, 2.0, 1.0))])
def test_cubes_have_the_compactness_of_cubes(edges: tuple[int, ...], spacing: tuple[float, ...] | None) -> None:
    shape = tuple(3 * edge for edge in edges)
    steps = [np.arange(n) // edge for n, edge in zip(shape, edges, strict=True)]
    grid = np.ravel_multi_index(np.meshgrid(*steps, indexing="ij"), (3,) * len(edges))
    assert compactness(grid, spacing) == pytest.approx(np.pi / 4 if len(edges) == 2 else np.pi / 6)
    grid[grid == 4] = -1
    assert compactness(grid, spacing) == pytest.approx(np.pi / 4 if len(edges) == 2 else np.pi / 6)


def test_a_row_of_voxels_by_hand() -> None:
    segments = np.array([[[0, 0, 0, 1]]])  # volumes 3 and 1, areas 14 and 6
    quotients = 36 * np.pi * 9 / 14**3, np.pi / 6
    assert compactness(segments) == pytest.approx((3 * quotients[0] + quotients[1]) / 4)


def test_everything_at_once(case: tuple[np.ndarray, ...]) -> None:
    segments, labels, image = case
    quality = measure_segments(torch.from_numpy(segments), image=image, labels=labels, num_classes=5)
    counts = np.array([np.count_nonzero(segments == k) for k in range(12)])
    assert quality.num_segments == 12
    assert quality.sizes == {
        "min": counts.min(),
        "median": np.median(counts),
        "max": counts.max(),
        "mean": counts.mean(),
        "sd": counts.std(),
    }
    assert (quality.compactness is None) == (segments.ndim == 3)
    assert (quality.isoperimetric_quotient is None) == (segments.ndim == 2)
    assert quality.oracle_dice is not None
    assert len(quality.oracle_dice) == 5
    alone = measure_segments(segments)
    assert (alone.accuracy, alone.boundary_recall, alone.explained_variation, alone.oracle_dice) == (None,) * 4


def test_what_does_not_fit_is_refused() -> None:
    segments = np.zeros((3, 4), int)
    with pytest.raises(UsageError, match=r"labels must have the shape of the segments, \(3, 4\), got \(3, 5\)"):
        achievable_accuracy(segments, np.zeros((3, 5), int))
    with pytest.raises(UsageError, match="segments must hold ids from 0 on"):
        measure_segments(segments - 1)
    with pytest.raises(UsageError, match="segments must hold integers, got float64"):
        measure_segments(segments * 1.0)
    with pytest.raises(UsageError, match=r"2 or 3 axes, got shape \(12,\)"):
        compactness(segments.ravel())
