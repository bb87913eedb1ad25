"""slic: its promises on phantoms, masks, spacings, dtypes and bad arguments."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.segmentation import slic as skimage_slic

from voxpool.errors import UsageError
from voxpool.kernels.connectivity_numba import connect
from voxpool.kernels.slic_numba import assign
from voxpool.supervoxels import blocks, oracle_labels, slic


def make_phantom(shape, seed=0, noise=0.05):
    """Four tissues with curved borders: (image float32, labels)."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 4) for _ in range(4)]
    labels = np.argmax(fields, axis=0)
    image = ndimage.gaussian_filter(np.array([0.1, 0.4, 0.65, 0.9])[labels], 0.5)
    return (image + noise * rng.standard_normal(shape)).astype(np.float32), labels


def make_ball(shape):
    centre = (np.array(shape) - 1) / 2
    grid = np.indices(shape) - centre.reshape(-1, *[1] * len(shape))
    return (grid**2).sum(axis=0) <= (min(shape) / 2 - 1) ** 2


def check_promises(segments, mask):
    """Check -1 exactly outside; ids 0..K-1 by first voxel in raster order; one component each. Returns K."""
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(segments == -1, ~mask)
    ids, first = np.unique(segments[mask], return_index=True)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    assert (np.diff(first) > 0).all()
    for k, box in enumerate(ndimage.find_objects(segments + 1)):
        assert ndimage.label(segments[box] == k)[1] == 1
    return len(ids)


def accuracy(segments, labels):
    return float((oracle_labels(segments, labels, 4) == labels).mean())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_segments", [60, 200, 1000, 3000])
def test_number_of_segments_is_within_five_percent(n_segments, masked):
    image, _ = make_phantom((48, 56, 40))
    mask = make_ball(image.shape) if masked else np.ones(image.shape, bool)
    segments = slic(image, n_segments, mask=mask if masked else None)
    assert check_promises(segments, mask) == pytest.approx(n_segments, rel=0.05)


@pytest.mark.parametrize("n_segments", [80, 150, 400])
def test_number_of_superpixels_is_within_five_percent(n_segments):
    image, _ = make_phantom((90, 70))
    count = check_promises(slic(image, n_segments), np.ones(image.shape, bool))
    assert count == pytest.approx(n_segments, rel=0.05)


@pytest.mark.parametrize("seed", range(16))
def test_promises_hold_on_noise_and_fragmented_masks(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 16, 3)) if seed % 2 else tuple(rng.integers(2, 40, 2))
    mask = rng.random(shape) >= (0, 0.2, 0.5, 0.8)[seed // 4]
    mask.flat[0] = True
    n_segments = int(rng.integers(1, mask.sum() // 3 + 2))
    segments = slic(
        rng.random(shape),
        min(n_segments, int(mask.sum())),
        compactness=(0.02, 0.1, 1.0, 1e6)[seed % 4],
        spacing=rng.choice([0.5, 1, 3], len(shape)),
        mask=mask,
    )
    check_promises(segments, mask)


def test_two_blobs_in_a_mask_never_share_a_segment():
    image = np.zeros((10, 10, 21), np.float32)
    mask = np.ones(image.shape, bool)
    mask[:, :, 10] = False
    segments = slic(image, 3, mask=mask, min_size_factor=0.9)
    check_promises(segments, mask)
    assert not set(np.unique(segments[..., :10])) & set(np.unique(segments[..., 11:]))


@pytest.mark.parametrize(
    ("shape", "n_segments", "spacing"),
    [((12, 12, 12), 27, None), ((12, 15, 4), 60, (1, 1, 3)), ((20, 30), 24, None), ((20, 30), 24, (3, 2))],
)
def test_at_high_compactness_slic_is_blocks(shape, n_segments, spacing):
    image = np.random.default_rng(0).random(shape)
    expected = blocks(shape, n_segments=n_segments, spacing=spacing)
    np.testing.assert_array_equal(slic(image, n_segments, compactness=1e6, spacing=spacing), expected)


def test_segments_are_as_wide_in_mm_along_every_axis():
    image = np.random.default_rng(0).random((48, 48, 16))
    segments = slic(image, 216, compactness=20, spacing=(1, 1, 3))
    assert segments.max() + 1 == 216
    variance = np.zeros(3)
    for k, box in enumerate(ndimage.find_objects(segments + 1)):
        # A voxel is not a point: its own width adds 1/12 to the variance along each axis.
        variance += (np.argwhere(segments[box] == k).var(axis=0) + 1 / 12) * np.square((1, 1, 3))
    assert np.sqrt(variance.max() / variance.min()) < 1.15


def test_distance_has_spacing_step_and_compactness_as_the_formula_says():
    rng = np.random.default_rng(0)
    # Many exact zeros and ones: the percentiles are 0 and 1, so scaling changes nothing.
    image = np.clip(np.rint((rng.random((2, 12, 12, 4)) * 1.2 - 0.1) * 2**16) / 2**16, 0, 1).astype(np.float32)
    edges = np.array([0, 4, 8, 12]), np.array([0, 4, 8, 12]), np.array([0, 1, 2, 4])
    weights = np.array([(0.3 * 1 / 4) ** 2, (0.3 * 1 / 4) ** 2, (0.3 * 3 / 4) ** 2, 1 / 2])
    cells = assign(image, np.ones((12, 12, 4), bool), edges, weights, 5)
    expected, count = connect(cells, image, 0.25 * 576 / 27, 28)
    found = slic(image, 27, compactness=0.3, spacing=(1, 1, 3), max_num_iter=5, channel_axis=0)
    assert count >= 26
    np.testing.assert_array_equal(found, expected)


def test_only_the_ratio_of_spacings_counts():
    image = np.random.default_rng(0).random((12, 13, 14))
    np.testing.assert_array_equal(slic(image, 27, spacing=(2, 4, 4)), slic(image, 27, spacing=(1, 2, 2)))


def test_depth_one_is_two_dimensional():
    image, _ = make_phantom((40, 50))
    flat = slic(image, 60, spacing=(1, 2))
    np.testing.assert_array_equal(slic(image[None], 60, spacing=(5, 1, 2))[0], flat)
    np.testing.assert_array_equal(slic(image[:, None], 60, spacing=(1, 5, 2))[:, 0], flat)


def test_intensity_scale_and_offset_do_not_matter():
    image = np.rint(make_phantom((20, 24, 22))[0] * 500).astype(np.int64)
    expected = slic(image, 150)
    for changed in (image * 4 + 1024, image * 3 - 7, image.astype(np.float32) * 0.5 + 3, image * 10**12):
        np.testing.assert_array_equal(slic(changed, 150), expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4"])
def test_every_number_type_gives_the_same_segments(dtype):
    image = np.rint(np.clip(make_phantom((14, 15, 16))[0], 0, 1) * 200)
    np.testing.assert_array_equal(slic(image.astype(dtype), 60), slic(image, 60))


def test_a_few_extreme_voxels_do_not_change_the_compactness():
    image, labels = make_phantom((32, 32, 32))
    spiked = image.copy()
    spiked[3, 4, 5], spiked[20, 20, 20] = 1e30, -1e6
    assert accuracy(slic(spiked, 300), labels) > accuracy(slic(image, 300), labels) - 0.005


def test_values_far_beyond_the_percentiles_are_clipped_but_keep_some_contrast():
    image = np.clip(np.random.default_rng(0).random((12, 12, 12)) * 1.2 - 0.1, 0, 1)  # percentiles 0 and 1
    image[2:4, 2:4, 2:4], image[8:10, 8:10, 8] = 2, -1
    expected = slic(image, 30)
    np.testing.assert_array_equal(slic(np.where(image == 2, 70, np.where(image == -1, -5, image)), 30), expected)
    assert (slic(np.clip(image, 0, 1), 30) != expected).any()


def test_voxels_outside_the_mask_are_not_read():
    image, _ = make_phantom((24, 24, 24))
    mask = make_ball(image.shape)
    changed = np.where(mask, image, np.nan)
    np.testing.assert_array_equal(slic(changed, 100, mask=mask), slic(image, 100, mask=mask))


def test_mask_is_cropped_so_that_empty_margins_do_not_matter():
    image, _ = make_phantom((20, 22, 24))
    padded = slic(np.pad(image, 5), 100, mask=np.pad(np.ones(image.shape, bool), 5))
    np.testing.assert_array_equal(padded[5:-5, 5:-5, 5:-5], slic(image, 100))


def test_constant_image_gives_compact_segments():
    segments = slic(np.full((12, 12, 12), 7.0), 27)
    np.testing.assert_array_equal(segments, blocks((12, 12, 12), n_segments=27))


def test_mostly_constant_image_keeps_its_contrast():
    image = np.zeros((20, 20, 20))
    image[5:8, 5:8, 5:8] = 9
    segments = slic(image, 64, min_size_factor=0)
    assert set(segments[image > 0]).isdisjoint(segments[image == 0])


def test_channels_lie_where_channel_axis_says_and_count_alike():
    image, _ = make_phantom((16, 18, 20))
    other = make_phantom(image.shape, seed=5)[0]
    expected = slic(np.stack([image, other]), 80, channel_axis=0)
    np.testing.assert_array_equal(slic(np.stack([image, other], -1), 80, channel_axis=-1), expected)
    np.testing.assert_array_equal(slic(np.stack([image, image * 7]), 80, channel_axis=0), slic(image, 80))
    assert (expected != slic(image, 80)).any()


def test_both_channels_are_followed():
    left, right = np.zeros((2, 16, 16, 16))
    left[:, :7] = 1
    right[:, :, 9:] = 5
    segments = slic(np.stack([left, right]), 27, channel_axis=0, compactness=0.02)
    pairs = np.unique(np.stack([segments.ravel(), left.ravel(), right.ravel()]), axis=1)
    assert pairs.shape[1] == segments.max() + 1


def test_smallest_segment_follows_min_size_factor():
    image = np.zeros((24, 24, 24))
    image[18, 6, 7:9] = 9
    image[12:14, 12:16, 15:19] = 9  # 32 voxels, of 54 that a quarter of the mean size is
    smallest = [np.bincount(slic(image, 64, min_size_factor=f).ravel()).min() for f in (0, 0.12, 0.25, 0.8)]
    assert smallest[:2] == [2, 32]
    assert smallest[2] >= 0.25 * 24**3 / 64
    assert smallest[3] >= 0.8 * 24**3 / 64


def test_more_iterations_follow_the_image_better():
    image, labels = make_phantom((32, 32, 32))
    few, many = (accuracy(slic(image, 150, max_num_iter=n), labels) for n in (1, 10))
    assert many > few


@pytest.mark.parametrize("seed", [1, 2])
def test_follows_tissue_no_worse_than_scikit_image(seed):
    image, labels = make_phantom((48, 48, 48), seed, noise=0.08)
    theirs = skimage_slic(image, 1000, compactness=0.1, channel_axis=None, start_label=0)
    ours = slic(image, int(theirs.max()) + 1)
    assert ours.max() == pytest.approx(theirs.max(), rel=0.05)
    assert accuracy(ours, labels) > accuracy(theirs, labels) - 0.01


def test_repeated_calls_are_bit_equal():
    image, _ = make_phantom((40, 40, 40), noise=0.2)
    np.testing.assert_array_equal(slic(image, 500), slic(image, 500))


def test_torch_in_torch_out():
    image, _ = make_phantom((16, 16, 16))
    mask = make_ball(image.shape)
    found = slic(torch.from_numpy(image), 50, mask=torch.from_numpy(mask))
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), slic(image, 50, mask=mask))
    brain = torch.from_numpy(image).to(torch.bfloat16).requires_grad_()
    np.testing.assert_array_equal(slic(brain, 50).numpy(), slic(brain.detach().float().numpy(), 50))


def test_input_is_not_changed_and_may_be_strided_or_read_only():
    image, _ = make_phantom((16, 18, 20))
    turned = image.transpose(2, 1, 0)[::-1]
    turned.flags.writeable = False
    before = turned.copy()
    np.testing.assert_array_equal(slic(turned, 40), slic(before, 40))
    np.testing.assert_array_equal(turned, before)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_segments": 0}, "n_segments must be a whole number of at least 1, got 0"),
        ({"n_segments": 2.5}, "whole number of at least 1, got 2.5"),
        ({"n_segments": 1001}, "n_segments is 1001, but there are only 1000 voxels"),
        ({"compactness": 0}, "compactness must be above 0 and at most 1e6, got 0"),
        ({"compactness": float("nan")}, "compactness must be above 0"),
        ({"max_num_iter": 0}, "max_num_iter must be at least 1, got 0"),
        ({"min_size_factor": -1}, "min_size_factor must be at least 0 and less than 1, got -1"),
        ({"spacing": (1, 1)}, "spacing must be 3 positive numbers"),
        ({"spacing": (1, 0, 1)}, "spacing must be 3 positive numbers"),
        (
            {"mask": np.ones((10, 10))},
            r"mask must have the shape of the image, \(10, 10, 10\), got \(10, 10\)",
        ),
        ({"mask": np.zeros((10, 10, 10))}, "mask is empty"),
        ({"image": np.zeros((2, 10, 10, 10))}, r"2 or 3 spatial axes, got shape \(2, 10, 10, 10\)"),
        ({"image": np.zeros(10)}, "2 or 3 spatial axes"),
        ({"channel_axis": 7}, "channel_axis is 7, but the image has only 3 axes"),
        (
            {"image": np.zeros((10, 10), complex)},
            "must hold integers or floating-point numbers, got complex128",
        ),
        ({"image": np.zeros((0, 10))}, r"no voxels: its shape is \(0, 10\)"),
        ({"image": np.full((10, 10, 10), np.nan)}, "1000 NaN, infinite or immense voxels"),
        ({"image": np.full((10, 10, 10), -np.inf)}, "1000 NaN, infinite or immense voxels"),
        ({"image": np.full((10, 10, 10), 1e308)}, "1000 NaN, infinite or immense voxels"),
    ],
)
def test_bad_arguments_get_one_sentence(changes, sentence):
    arguments = {"image": np.zeros((10, 10, 10)), "n_segments": 8, **changes}
    with pytest.raises(UsageError, match=sentence) as caught:
        slic(**arguments)
    assert "\n" not in str(caught.value)


def test_importing_supervoxels_loads_neither_numba_nor_torch():
    code = "import sys, voxpool.supervoxels; print([m for m in ('numba', 'torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
