import numpy as np
import pytest
from scipy import ndimage

from voxpool.data.phantom import phantom
from voxpool.errors import UsageError

SHAPES = [(16, 16), (40, 64), (16, 16, 16), (64, 64, 64), (31, 50, 44)]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_classes_in_one_brain_that_stays_inside_the_grid(shape):
    image, labels = phantom(shape)
    assert image.shape == labels.shape == shape
    assert image.dtype == np.float32
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    parts, count = ndimage.label(labels > 0)
    assert count == 1
    assert parts.any()
    for axis in range(len(shape)):
        edges = labels.take([0, -1], axis=axis)
        assert not edges.any()


def test_image_is_zero_outside_and_separates_tissues_on_average_only():
    image, labels = phantom((64, 64, 64))
    assert (image[labels == 0] == 0).all()
    assert (image[labels > 0] > 0).all()
    csf, gm, wm = (image[labels == label] for label in (1, 2, 3))
    assert csf.mean() < gm.mean() - 100 < wm.mean() - 200
    assert np.quantile(gm, 0.99) > np.quantile(wm, 0.01), "tissues must overlap, or every test passes"


def test_seed_decides_everything():
    first, again, other = (phantom((32, 32, 32), seed=seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[1] != other[1]).mean() > 0.02
    assert not np.array_equal(first[0], other[0])


def test_noise_and_bias_field_are_there():
    image, labels = phantom((64, 64, 64))
    core = ndimage.binary_erosion(labels == 3, iterations=3)
    smooth = ndimage.uniform_filter(image, 5)
    assert (image - smooth)[core].std() == pytest.approx(40, rel=0.1)
    assert smooth[core].max() / smooth[core].min() > 1.2


def test_cortex_is_as_thick_in_mm_along_a_coarse_axis_as_along_a_fine_one():
    """The same brain in mm, cut into voxels of another size, has the same volumes."""
    fine = phantom((64, 64, 64), spacing=(1, 1, 1))[1]
    coarse = phantom((64, 64, 32), spacing=(1, 1, 2))[1]
    for label in (1, 2, 3):
        assert 2 * (coarse == label).sum() == pytest.approx((fine == label).sum(), rel=0.03)
    long = phantom((64, 64, 64), spacing=(1, 1, 3))[1]
    middle = long[32, 32]
    grey = np.flatnonzero(middle == 2)
    side = long[32, :, 32]
    thickness_z = 3 * np.count_nonzero(grey > 40)
    thickness_y = np.count_nonzero(np.flatnonzero(side == 2) > 50)
    assert thickness_z == pytest.approx(thickness_y, abs=4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (64,)}, "2 or 3 axes"),
        ({"shape": (64, 8, 64)}, "at least 16"),
        ({"shape": (32, 32), "spacing": (1, 1, 1)}, "2 positive numbers"),
        ({"shape": (32, 32), "spacing": (1, 0)}, "positive"),
        ({"shape": (32, 32), "spacing": (1, float("nan"))}, "positive"),
    ],
)
def test_unusable_arguments_are_named(arguments, words):
    with pytest.raises(UsageError, match=words):
        phantom(**arguments)
