"""What training does to images: known colours, exact crops, mirrored and enlarged places."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from voxpool.data2d.transforms import MEAN, SD, Augmentation, augment, superpixels, to_tensor
from voxpool.supervoxels import slic

STILL = Augmentation(scale=(1.0, 1.0), degrees=0.0, flip=0.0, blur=0.0)


def picture(height=24, width=32, seed=0):
    rng = np.random.default_rng(seed)
    return to_tensor(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), torch.from_numpy(
        rng.integers(0, 5, (height, width), dtype=np.uint8)
    )


def test_colours_become_imagenets_numbers():
    found = to_tensor(np.array([[[255, 0, 128]]], np.uint8))
    expected = (np.array([1, 0, 128 / 255]) - MEAN) / SD
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-6)


def test_a_crop_without_changes_is_a_part_of_the_image():
    image, labels = picture()
    cut, ids = augment(image, labels, (24, 32), np.random.default_rng(0), STILL)
    torch.testing.assert_close(cut, image, atol=1e-4, rtol=0)
    assert torch.equal(ids, labels)
    # a smaller crop lies somewhere inside: all of it has labels
    _, ids = augment(image, labels, (16, 16), np.random.default_rng(1), STILL)
    assert ids.max() < 5


def test_a_mirrored_image_is_mirrored():
    image, labels = picture()
    mirrored = Augmentation(scale=(1.0, 1.0), degrees=0.0, flip=1.0, blur=0.0)
    cut, ids = augment(image, labels, (24, 32), np.random.default_rng(0), mirrored)
    torch.testing.assert_close(cut, image.flip(2), atol=1e-4, rtol=0)
    assert torch.equal(ids, labels.flip(1))


def test_an_image_of_twice_the_size_is_enlarged():
    image, labels = picture()
    double = Augmentation(scale=(2.0, 2.0), degrees=0.0, flip=0.0, blur=0.0)
    cut, ids = augment(image, labels, (48, 64), np.random.default_rng(0), double)
    enlarged = functional.interpolate(image[None], scale_factor=2, mode="bilinear")[0]
    # grid_sample fades to 0 at the border, interpolate does not
    torch.testing.assert_close(cut[:, 1:-1, 1:-1], enlarged[:, 1:-1, 1:-1], atol=1e-4, rtol=0)
    assert torch.equal(ids, labels.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_outside_the_image_nothing_counts():
    image, labels = picture()
    cut, ids = augment(image, labels, (40, 40), np.random.default_rng(0), STILL)
    outside = ids == 255
    assert int((~outside).sum()) == 24 * 32
    # colours fade over the one pixel at the border
    eroded = functional.max_pool2d((~outside)[None].float(), 3, 1, 1)[0] == 0
    assert (cut[:, eroded] == 0).all()


def test_a_turned_image_keeps_its_middle():
    labels = torch.zeros((41, 41), dtype=torch.uint8)
    labels[20, 20:] = 1  # a line from the middle to the right
    turned = Augmentation(scale=(1.0, 1.0), degrees=10.0, flip=0.0, blur=0.0)
    image = labels.float().expand(3, -1, -1)
    angles = []
    for seed in range(20):
        _, ids = augment(image, labels, (41, 41), np.random.default_rng(seed), turned)
        assert ids[20, 20] == 1
        rows, columns = (ids == 1).nonzero().T.double()
        far = columns > 32
        angles.append(float(torch.rad2deg(torch.atan2(rows[far] - 20, columns[far] - 20)).mean()))
    assert max(np.abs(angles)) < 12
    assert max(angles) > 3
    assert min(angles) < -3


def test_blur_keeps_the_mean_and_lowers_the_contrast():
    image, labels = picture(64, 64)
    blurred = Augmentation(scale=(1.0, 1.0), degrees=0.0, flip=0.0, blur=1.0, blur_sigma=2.0)
    cut, ids = augment(image, labels, (64, 64), np.random.default_rng(3), blurred)
    assert torch.equal(ids, labels)
    assert float(cut.mean()) == pytest.approx(float(image.mean()), abs=0.02)
    assert cut.std() < 0.8 * image.std()


def test_the_same_state_gives_the_same_crop():
    image, labels = picture()
    first, second = (augment(image, labels, (16, 24), np.random.default_rng(5), Augmentation()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_superpixels_are_slics_of_the_colours():
    image, _ = picture(32, 40)
    found = superpixels(image, 20, 0.2)
    assert torch.equal(found, slic(image, 64, compactness=0.2, channel_axis=0))
