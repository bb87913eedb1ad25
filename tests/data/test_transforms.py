"""Preprocessing, its inverse and augmentation."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from voxpool.data.foreground import foreground_mask
from voxpool.data.native import to_native
from voxpool.data.phantom import phantom
from voxpool.data.transforms import (
    PreprocessConfig,
    SupervoxelConfig,
    Supervoxelsd,
    augmentation,
    make_segments,
    preprocessing,
    to_meta_tensor,
)
from voxpool.errors import InputError, UsageError
from voxpool.io import Geometry

AXCODES = [
    "".join(axes[i] for axes, i in zip(order, signs, strict=True))
    for order in itertools.permutations(("RL", "AP", "SI"))
    for signs in itertools.product((0, 1), repeat=3)
]


def _affine(axcodes: str, spacing: tuple[float, ...] = (1.0, 1.5, 2.0), tilt: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    for axis, code in enumerate(axcodes):
        direction = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[:, axis] = 0
        affine[direction, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[:3, 3] = (-10, 4, 7)
    return affine


def _brain(shape: tuple[int, ...] = (13, 18, 11)) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.zeros(shape, np.float32)
    image[2:-3, 3:-2, 1:-2] = rng.normal(100, 20, image[2:-3, 3:-2, 1:-2].shape)
    return image


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("axcodes", AXCODES)
def test_prepare_and_invert_return_to_the_own_grid(axcodes: str, tilt: float) -> None:
    image, affine = _brain(), _affine(axcodes, tilt=tilt)
    transform = preprocessing(PreprocessConfig(crop_margin=1), stride=8, labels=False)
    data = transform({"image": to_meta_tensor(image, affine)})
    assert all(size % 8 == 0 for size in data["image"].shape[1:])
    ids = np.arange(1, image.size + 1).reshape(image.shape)
    # every voxel of the crop names the voxel it came from
    ras = Geometry(image.shape, affine).to_ras(ids)
    prepared = np.asarray(data["image"][0])
    mask = np.asarray(data["mask"][0])
    found = np.full(prepared.shape, 0, np.int64)
    corner = np.argwhere(Geometry(image.shape, affine).to_ras(image) != 0).min(0) - 1
    low = np.maximum(corner, 0)
    part = ras[low[0] :, low[1] :, low[2] :][tuple(slice(0, n) for n in prepared.shape)]
    found[tuple(slice(0, n) for n in part.shape)] = part
    found[~mask] = 0
    back = to_native(found, data["image"].affine.numpy(), Geometry(image.shape, affine))
    np.testing.assert_array_equal(back, np.where(image != 0, ids, 0))


def test_a_working_spacing_is_taken_and_undone() -> None:
    image, affine = phantom((24, 28, 20), seed=0)[0], _affine("LAS", (2.0, 2.0, 2.0))
    transform = preprocessing(PreprocessConfig(spacing=(1.0, 1.0, 1.0)), stride=8, labels=False)
    data = transform({"image": to_meta_tensor(image, affine)})
    np.testing.assert_allclose(data["image"].pixdim, (1, 1, 1), atol=1e-6)
    back = to_native(np.asarray(data["mask"][0]), data["image"].affine.numpy(), Geometry(image.shape, affine))
    assert back.shape == image.shape
    agreement = np.mean(back == foreground_mask(image))
    assert agreement > 0.97


@pytest.mark.parametrize("shear", [0.0, 0.2])
def test_the_way_back_takes_the_nearest_voxel(shear: float) -> None:
    rng = np.random.default_rng(3)
    array = rng.integers(1, 100, (9, 8, 7))
    other = np.array([[-1.3, 0, 0, 5], [0, 0, 0.9, -2], [0, 1.1, 0, 1], [0, 0, 0, 1.0]])
    other[0, 1] = shear
    geometry = Geometry((12, 10, 11), _affine("PLS", (1.0, 0.7, 1.2)))
    back = to_native(array, other, geometry)
    move = np.linalg.inv(other) @ geometry.affine
    for index in np.ndindex(*geometry.shape):
        place = move[:3, :3] @ index + move[:3, 3]
        near = np.rint(place).astype(int)
        if np.abs(place - np.floor(place) - 0.5).min() < 1e-6:
            continue  # a tie
        there = np.all((near >= 0) & (near < array.shape))
        assert back[index] == (array[tuple(near)] if there else 0)


def test_a_grid_elsewhere_has_no_values() -> None:
    far = np.eye(4)
    far[0, 3] = 100
    assert not to_native(np.ones((3, 3, 3), np.uint8), far, Geometry((4, 4, 4), np.eye(4))).any()


def test_intensities_are_robust_and_zero_outside() -> None:
    image = _brain((20, 20, 20))
    mask = image != 0
    spoiled = image.copy()
    spoiled[np.unravel_index(np.flatnonzero(mask)[:3], mask.shape)] = 1e6  # three hot voxels
    prepare = preprocessing(PreprocessConfig(), stride=1, labels=False)
    clean, hot = (prepare({"image": to_meta_tensor(x, np.eye(4))}) for x in (image, spoiled))
    inside = np.asarray(clean["image"][0])[np.asarray(clean["mask"][0])]
    low, high = np.percentile(image[mask], (0.5, 99.5))
    want = (np.clip(image[mask], low, high) - low) / np.clip(image[mask], low, high).std()
    np.testing.assert_allclose(np.sort(inside), np.sort(want), atol=1e-5)
    assert np.all(np.asarray(clean["image"][0])[~np.asarray(clean["mask"][0])] == 0)
    median = [np.median(np.asarray(d["image"][0])[np.asarray(d["mask"][0])]) for d in (clean, hot)]
    assert median[1] == pytest.approx(median[0], rel=0.02)


def test_scale_and_offset_of_a_scan_do_not_matter() -> None:
    image = _brain((20, 20, 20))
    prepare = preprocessing(PreprocessConfig(), stride=1, labels=False)
    one = prepare({"image": to_meta_tensor(image, np.eye(4))})["image"]
    other = prepare({"image": to_meta_tensor(np.where(image != 0, 7 * image + 300, 0), np.eye(4))})["image"]
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-4)


def test_foreground_of_a_stripped_and_a_raw_image() -> None:
    image, labels = phantom((40, 40, 40), seed=1)
    np.testing.assert_array_equal(foreground_mask(_brain()), _brain() != 0)
    rng = np.random.default_rng(0)
    raw = image + np.abs(rng.normal(0, 0.01 * image.max(), image.shape)).astype(np.float32)
    head = foreground_mask(raw)
    assert head[labels > 0].mean() > 0.95
    assert head[:3].mean() < 0.05


def test_a_constant_image_is_refused() -> None:
    with pytest.raises(InputError, match="constant: all 8 voxels are 3"):
        foreground_mask(np.full((2, 2, 2), 3.0))


@pytest.mark.parametrize("method", ["slic", "block"])
def test_supervoxels_of_a_prepared_image(method: str) -> None:
    image, _ = phantom((40, 40, 40), seed=1)
    prepare = preprocessing(PreprocessConfig(), stride=8, labels=False)
    data = prepare({"image": to_meta_tensor(image, np.eye(4))})
    config = SupervoxelConfig(method, 60)
    segments = Supervoxelsd("image", config)(data)["segments"]
    assert segments.shape == data["image"].shape
    assert segments.dtype == torch.int32
    mask = np.asarray(data["mask"][0])
    ids = np.unique(np.asarray(segments[0]))
    if method == "slic":
        np.testing.assert_array_equal(np.asarray(segments[0]) >= 0, mask)
        ids = ids[1:]
    else:
        # as large as 60 equal parts of the brain, whatever the brain's outline does to their number
        assert np.median(np.bincount(np.asarray(segments[0]).ravel())) == pytest.approx(mask.sum() / 60, rel=0.3)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    again = make_segments(np.asarray(data["image"]), mask, config, spacing=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(segments[0], again)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="must be slic or block, got 'seeds'"):
        Supervoxelsd("image", SupervoxelConfig("seeds", 10))  # type: ignore[arg-type]


def _coordinates(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Image, labels and segments that all name their voxel."""
    ids = torch.arange(1, int(np.prod(shape)) + 1).reshape(1, *shape)
    return {"image": ids.float(), "labels": ids.to(torch.int32), "segments": ids.to(torch.int32)}


def test_augmentation_moves_image_labels_and_segments_alike() -> None:
    augment = augmentation((8, 8, 8), segments=True)
    flips = 0
    for seed in range(12):
        augment.set_random_state(seed=seed)
        out = augment(_coordinates((10, 12, 9)))
        assert all(not isinstance(value, MetaTensor) for value in out.values())
        np.testing.assert_array_equal(out["labels"], out["segments"])
        # intensities are changed monotonically: the order of the voxels is that of the labels
        order = torch.argsort(out["image"].flatten(), stable=True)
        assert torch.equal(order, torch.argsort(out["labels"].flatten(), stable=True))
        flips += int(out["labels"][0, 0, 0, 0] > out["labels"][0, -1, 0, 0])
    assert 0 < flips < 12


def test_augmentation_is_seeded_and_pads_small_volumes() -> None:
    augment = augmentation((8, 8, 8), segments=True)
    runs = []
    for _ in range(2):
        augment.set_random_state(seed=5)
        runs.append(augment(_coordinates((5, 12, 8))))
    for key in runs[0]:
        np.testing.assert_array_equal(runs[0][key], runs[1][key])
    out = runs[0]
    assert out["image"].shape == (1, 8, 8, 8)
    assert torch.all(out["segments"][0, 5:] == -1)
    assert torch.all(out["image"][0, 5:] == 0)
    assert torch.all(out["labels"][0, 5:] == 0)
