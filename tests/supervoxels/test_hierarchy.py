"""Nested segments: unions, connected, Ward's order against a brute force, variance explained."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxpool.data.phantom import phantom
from voxpool.errors import UsageError
from voxpool.supervoxels import measure_segments, nest_segments, slic
from voxpool.supervoxels.hierarchy import _adjacent


@pytest.fixture(scope="module")
def brain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, labels = phantom((40, 48, 40))
    mask = labels > 0
    return np.asarray(slic(image, 1500, mask=mask)), image, labels


def test_every_coarse_segment_is_a_connected_union_of_finer_ones(brain: tuple[np.ndarray, ...]) -> None:
    segments, image, _ = brain
    counts = (700, 300, 40)
    hierarchy = nest_segments(segments, image, counts)
    finer = segments
    for level, count in enumerate(counts):
        coarse = hierarchy.paint(level, segments)
        assert np.array_equal(coarse < 0, segments < 0)
        assert coarse.max() + 1 == count
        assert len(np.unique(np.stack([finer, coarse]).reshape(2, -1), axis=1).T) == finer.max() + 2
        for k in range(0, count, 7):
            assert ndimage.label(coarse == k)[1] == 1
        finer = coarse


@pytest.mark.parametrize("count", [60, 150, 400])
def test_they_explain_more_than_as_few_grown_from_the_image(count: int, brain: tuple[np.ndarray, ...]) -> None:
    segments, image, labels = brain
    grown = slic(image, count, mask=labels > 0)
    coarse = nest_segments(segments, image, [int(grown.max()) + 1]).paint(0, segments)
    ours, theirs = (measure_segments(s, image=image, labels=labels) for s in (coarse, grown))
    assert ours.num_segments == theirs.num_segments
    assert ours.explained_variation > theirs.explained_variation


def brute_force(ids: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """Merge the cheapest adjacent pair again and again."""
    ids = ids.copy()
    while len(np.unique(ids)) > count:
        best = (np.inf, -1, -1)
        for a, b in _adjacent(ids):
            x, y = image[ids == a], image[ids == b]
            cost = (x.mean() - y.mean()) ** 2 * x.size * y.size / (x.size + y.size)
            best = min(best, (cost, a, b))
        ids[ids == best[2]] = best[1]
    return ids


def test_wards_order_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    # steps that grow: merging never makes a later merge cheaper, so that rounds and one by one must agree
    image = np.sort(rng.exponential(size=16)).cumsum().reshape(1, 16)
    ids = np.arange(16).reshape(1, 16)
    hierarchy = nest_segments(ids, image, [9, 4, 2])
    for level, count in enumerate((9, 4, 2)):
        expected = np.unique(brute_force(ids, image, count), return_inverse=True)[1].reshape(ids.shape)
        assert np.array_equal(hierarchy.paint(level, ids), expected)


def test_adjacent_pairs_by_brute_force() -> None:
    ids = np.random.default_rng(1).integers(-1, 9, (5, 6, 7))
    found = set()
    for place in np.ndindex(*ids.shape):
        for axis in range(3):
            other = tuple(p + (i == axis) for i, p in enumerate(place))
            if other[axis] < ids.shape[axis]:
                pair = sorted((ids[place], ids[other]))
                if pair[0] != pair[1] and pair[0] >= 0:
                    found.add(tuple(pair))
    assert [tuple(pair) for pair in _adjacent(ids)] == sorted(found)


def test_islands_cannot_be_joined_and_more_than_there_are_changes_nothing() -> None:
    ids = np.array([[0, 1, -1, 2, 3]])
    hierarchy = nest_segments(torch.from_numpy(ids), torch.zeros(2, 1, 5), [10, 1])
    assert [parents.tolist() for parents in hierarchy.parents] == [[0, 1, 2, 3], [0, 0, 1, 1]]
    coarse = hierarchy.paint(1, torch.from_numpy(ids))
    assert isinstance(coarse, torch.Tensor)
    assert coarse.tolist() == [[0, 0, -1, 1, 1]]


def test_what_does_not_fit_is_refused() -> None:
    ids = np.array([[0, 1, 2]])
    with pytest.raises(UsageError, match=r"shape of the segments, \(1, 3\), got \(1, 4\)"):
        nest_segments(ids, np.zeros((1, 4)), [2])
    with pytest.raises(UsageError, match=r"fall from fine to coarse, got \(1, 2\)"):
        nest_segments(ids, np.zeros((1, 3)), [1, 2])
    with pytest.raises(UsageError, match="every id from 0 on"):
        nest_segments(ids * 2, np.zeros((1, 3)), [2])
    with pytest.raises(UsageError, match="NaN or infinite voxels"):
        nest_segments(ids, np.array([[0, np.nan, 1]]), [2])
