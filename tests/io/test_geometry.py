"""The way to RAS and back keeps every voxel and its place, for all orientations and oblique grids."""

import pickle
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxpool.errors import InputError, UsageError
from voxpool.io import Geometry

AXIS_MAPS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
SHAPE = (3, 4, 5)


def rotation(degrees):
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


def make_affine(order, signs, spacing=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), origin=(-10.0, 20.0, 5.0)):
    axes = np.zeros((3, 3))
    for axis, (direction, sign) in enumerate(zip(order, signs, strict=True)):
        axes[direction, axis] = sign * spacing[axis]
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ axes
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize(("order", "signs"), AXIS_MAPS)
def test_every_orientation_goes_to_ras_and_back(order, signs):
    geometry = Geometry(SHAPE, make_affine(order, signs, spacing=(0.9, 1.5, 2.0)))
    names = ["LR", "PA", "IS"]
    assert geometry.orientation == "".join(names[d][s > 0] for d, s in zip(order, signs, strict=True))
    array = np.arange(60).reshape(SHAPE)
    ras = geometry.to_ras(array)
    assert geometry.ras().orientation == "RAS"
    assert geometry.ras().shape == ras.shape
    assert ras.flags.c_contiguous
    np.testing.assert_array_equal(geometry.from_ras(ras), array)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(array.astype(np.int16), geometry.affine))
    np.testing.assert_array_equal(ras, canonical.dataobj)
    np.testing.assert_allclose(geometry.ras().affine, canonical.affine, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    axes=st.sampled_from(AXIS_MAPS),
    spacing=st.tuples(*[st.floats(0.1, 10.0)] * 3),
    degrees=st.tuples(*[st.floats(-90.0, 90.0)] * 3),
    origin=st.tuples(*[st.floats(-300.0, 300.0)] * 3),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    mark=st.integers(0, 10**6),
)
def test_a_voxel_keeps_its_place_in_the_body(axes, spacing, degrees, origin, shape, mark):
    geometry = Geometry(shape, make_affine(*axes, spacing, degrees, origin))
    array = np.zeros(shape, np.uint8)
    array.flat[mark % array.size] = 1
    ras = geometry.to_ras(array)
    np.testing.assert_array_equal(geometry.from_ras(ras), array)
    before = geometry.affine @ [*np.argwhere(array)[0], 1]
    after = geometry.ras().affine @ [*np.argwhere(ras)[0], 1]
    np.testing.assert_allclose(after, before, atol=1e-9 * 1000)
    assert geometry.ras().orientation == "RAS"
    assert np.prod(geometry.spacing) == pytest.approx(np.prod(spacing))
    assert geometry.voxel_volume_ml == pytest.approx(np.prod(spacing) / 1000)


def test_leading_channel_axes_stay_in_front():
    geometry = Geometry(SHAPE, make_affine((2, 0, 1), (-1, 1, -1)))
    channels = np.random.default_rng(0).random((2, *SHAPE))
    ras = geometry.to_ras(channels)
    for channel, wanted in zip(ras, channels, strict=True):
        np.testing.assert_array_equal(channel, geometry.to_ras(wanted))
    np.testing.assert_array_equal(geometry.from_ras(ras), channels)


def test_a_wrong_shape_is_named():
    geometry = Geometry(SHAPE, make_affine((1, 0, 2), (1, 1, 1)))
    with pytest.raises(UsageError, match=r"must end in the grid's shape \(3, 4, 5\), got \(4, 3, 5\)"):
        geometry.to_ras(np.zeros((4, 3, 5)))
    with pytest.raises(UsageError, match=r"\(4, 3, 5\), got \(3, 4, 5\)"):
        geometry.from_ras(np.zeros(SHAPE))


def test_matches_measures_the_farthest_corner():
    geometry = Geometry((11, 11, 11), np.diag([1.0, 2.0, 3.0, 1.0]))
    shifted = geometry.affine.copy()
    shifted[0, 3] += 0.09
    assert geometry.matches(Geometry(geometry.shape, shifted))
    assert not geometry.matches(Geometry(geometry.shape, shifted), tolerance_mm=0.05)
    stretched = np.diag([1.02, 2.0, 3.0, 1.0])  # the far corner is 10 * 0.02 = 0.2 mm off
    assert geometry.distance_mm(Geometry(geometry.shape, stretched)) == pytest.approx(0.2)
    assert not geometry.matches(Geometry(geometry.shape, stretched))
    assert not geometry.matches(Geometry((11, 11, 12), geometry.affine))


def test_angles_are_measured():
    tilted = Geometry(SHAPE, make_affine((0, 1, 2), (-1, 1, 1), (1, 1, 2), (12.0, 0.0, 0.0)))
    assert tilted.obliquity_degrees == pytest.approx(12.0)
    assert tilted.shear_degrees == pytest.approx(0.0, abs=1e-6)
    sheared = np.eye(4)
    sheared[0, 1] = np.tan(np.radians(5.0))
    assert Geometry(SHAPE, sheared).shear_degrees == pytest.approx(5.0)
    assert Geometry(SHAPE, sheared).voxel_volume_ml == pytest.approx(0.001)


def test_equality_hash_and_pickle():
    first = Geometry(SHAPE, make_affine((0, 1, 2), (1, 1, -1), origin=(0.0, 0.0, 1.0)))
    second = Geometry(SHAPE, make_affine((0, 1, 2), (1, 1, -1), origin=(-0.0, 0.0, 1.0)))
    assert first == second
    assert hash(first) == hash(second)
    assert first != Geometry(SHAPE, np.eye(4))
    assert pickle.loads(pickle.dumps(first)) == first
    with pytest.raises(ValueError, match="read-only"):
        first.affine[0, 0] = 2


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.full((4, 4), np.nan), "NaN"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
        (np.eye(3), "4 by 4"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(affine, reason):
    with pytest.raises(InputError, match=rf"{reason}.*E112"):
        Geometry(SHAPE, affine)


@pytest.mark.parametrize("shape", [(3, 4), (3, 0, 5), (3, 4, 5, 1)])
def test_a_shape_that_is_no_volume_is_refused(shape):
    with pytest.raises(InputError, match="three axes"):
        Geometry(shape, np.eye(4))
