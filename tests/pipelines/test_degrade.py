"""Worse scans of the same head lie where the head lies, and turned ones come back."""

import numpy as np
import pytest

from voxpool.io import Geometry, Volume
from voxpool_pipelines.bench.degrade import DEGRADATIONS, orientations

AFFINE = np.array([[-1.0, 0, 0, 80], [0, 0, 1.2, -90], [0, 0.9, 0, -60], [0, 0, 0, 1]])
SHAPE = (40, 50, 44)


@pytest.fixture(scope="module")
def scan() -> tuple[Volume, np.ndarray]:
    grid = np.indices(SHAPE) - np.array([18.0, 26, 20]).reshape(3, 1, 1, 1)
    radius = np.sqrt((grid**2).sum(0))
    labels = np.digitize(-radius, [-16.0, -13, -6])
    brightness = np.array([0.0, 200, 600, 900])
    return Volume(brightness[labels].astype(np.float32), Geometry(SHAPE, AFFINE)), labels


def _middle(volume: Volume, inside: np.ndarray) -> np.ndarray:
    index = np.append(np.mean(np.nonzero(inside), axis=1), 1)
    return (volume.geometry.affine @ index)[:3]


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_head_stays_where_it_is(kind: str, scan: tuple[Volume, np.ndarray]) -> None:
    volume, labels = scan
    worse, target = DEGRADATIONS[kind](volume, labels)
    assert worse.array.shape == target.shape
    np.testing.assert_allclose(_middle(worse, target > 0), _middle(volume, labels > 0), atol=0.6)
    ml = [np.sum(part > 0) * grid.geometry.voxel_volume_ml for part, grid in ((target, worse), (labels, volume))]
    assert ml[0] == pytest.approx(ml[1], rel=0.05)


def test_contrasts_change_as_they_say(scan: tuple[Volume, np.ndarray]) -> None:
    volume, labels = scan

    def means(kind: str) -> np.ndarray:
        worse, target = DEGRADATIONS[kind](volume, labels)
        return np.array([worse.array[target == label].mean() for label in range(4)])

    assert np.all(np.diff(means("contrast inverted")[1:]) < 0)
    assert np.all(np.diff(means("T2-like")[1:]) < 0)
    assert means("contrast inverted")[0] == means("T2-like")[0] == 0
    shaded = DEGRADATIONS["shading x 3"](volume, labels)[0].array
    ratio = shaded[labels > 0] / volume.array[labels > 0]
    assert 1 <= ratio.min() < ratio.max() <= 3.0001


def test_noise_is_a_tenth_of_the_brightest(scan: tuple[Volume, np.ndarray]) -> None:
    volume, labels = scan
    noisy = DEGRADATIONS["noise 10 %"](volume, labels)[0].array
    inner = labels == 3
    assert (noisy - volume.array)[inner].std() == pytest.approx(90, rel=0.1)


def test_voxels_grow_as_they_say(scan: tuple[Volume, np.ndarray]) -> None:
    volume, labels = scan
    assert DEGRADATIONS["slices x 5"](volume, labels)[0].geometry.spacing == pytest.approx((1, 4.5, 1.2))
    assert DEGRADATIONS["voxels x 2"](volume, labels)[0].geometry.spacing == pytest.approx((2, 1.8, 2.4))


def test_every_orientation_is_another_and_comes_back(scan: tuple[Volume, np.ndarray]) -> None:
    volume, _ = scan
    marked = volume.array.copy()
    marked[3, 7, 11] = 5000
    place = volume.geometry.affine @ [3, 7, 11, 1]
    turned = list(orientations(Volume(marked, volume.geometry)))
    assert len({stored.geometry.affine.tobytes() for stored, _ in turned}) == 48
    for stored, back in turned:
        np.testing.assert_array_equal(back(stored.array), marked)
        index = np.unravel_index(np.argmax(stored.array), stored.array.shape)
        np.testing.assert_allclose(stored.geometry.affine @ [*index, 1], place)
