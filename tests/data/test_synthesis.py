"""Synthetic heads: seeds, shapes that do not tear, and artefacts with known statistics."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.data.heads import make_structures
from voxpool.data.head_labels import (
    CLASS_OF,
    CLASSES,
    CONVENTIONS,
    STRUCTURES,
    T1_LIKE,
    T2_LIKE,
    structure_ids,
)
from voxpool.data.synthesis import HeadMap, SynthesisConfig, read_head_map, synthesise
from voxpool.data.synthesis.appearance import blur, draw_brightness, draw_noise, draw_resolution, paint
from voxpool.data.synthesis.head_map import make_head_map
from voxpool.data.synthesis.sample import brain_mask, class_labels, draw_structures, normalise
from voxpool.data.transforms import NormalizeInsideMaskd
from voxpool.errors import InputError

STILL = SynthesisConfig(
    size=(64, 72, 56), rotation=0, scaling=0, shift=0, bending=0, ventricles=0, atrophy=0, stripped=0, voxel=1
)
MOVED = replace(STILL, rotation=15, scaling=0.1, shift=4, bending=4, ventricles=2)


@pytest.fixture(scope="module")
def head() -> HeadMap:
    return make_head_map(make_structures())


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_structure_has_a_class_and_a_brightness() -> None:
    assert len(STRUCTURES) == len(set(STRUCTURES)) == len(CLASS_OF)
    assert len(T1_LIKE) == len(T2_LIKE) <= len(STRUCTURES)
    assert set(CLASS_OF) == set(range(len(CLASSES)))
    for merged in CONVENTIONS.values():
        assert len(merged) == len(CLASSES)
    ids = structure_ids(np.array([0, 2, 41, 3, 43, 16, 507, 999]))
    names = [STRUCTURES[i] for i in ids]
    assert names[:7] == [
        "air", "white matter", "white matter", "cortex", "lateral ventricle", "brain stem", "soft tissue",
    ]  # fmt: skip
    assert names[7] == "air"


def test_a_seed_is_an_image(head: HeadMap) -> None:
    one, same, other = (synthesise(head, MOVED, seed) for seed in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.image, other.image)
    assert not torch.equal(one.labels, other.labels)
    again = synthesise(head, MOVED, 6, shape_seed=5)
    assert torch.equal(again.labels, one.labels)
    assert not torch.equal(again.image, one.image)


def test_without_movement_the_map_comes_back_or_its_mirror_image(head: HeadMap) -> None:
    centre = [round(c) for c in head.centre]
    starts = [c - side // 2 for c, side in zip(centre, STILL.size, strict=True)]
    window = tuple(slice(start, start + side) for start, side in zip(starts, STILL.size, strict=True))
    seen = set()
    for seed in range(6):
        found = draw_structures(head, STILL, seed).numpy()
        kept = [np.mean(found == np.roll(other, 0)) for other in (head.structures.numpy()[window],)]
        mirrored = np.mean(found == head.structures.numpy()[window][::-1])
        # the middle lies between two voxels, so that a mirror image may be half a voxel off
        assert max(*kept, mirrored) > 0.95
        seen.add(bool(mirrored > kept[0]))
    assert seen == {False, True}


def test_bending_tears_nothing(head: HeadMap) -> None:
    for seed in range(4):
        found = draw_structures(head, replace(STILL, bending=6), seed).numpy()
        inside = found == STRUCTURES.index("lateral ventricle")
        white = (found == STRUCTURES.index("white matter")) | (found == STRUCTURES.index("brain stem"))
        assert ndimage.label(inside)[1] == 1
        around = ndimage.binary_dilation(inside) & ~inside
        assert white[around].all()


def test_ventricles_grow_and_shrink(head: HeadMap) -> None:
    ventricle = STRUCTURES.index("lateral ventricle")
    before = int((head.structures == ventricle).sum())
    wide = [int((draw_structures(head, replace(STILL, ventricles=3), seed) == ventricle).sum()) for seed in range(8)]
    assert min(wide) < 0.8 * before
    assert max(wide) > 1.25 * before


def test_atrophy_turns_the_outermost_cortex_into_csf(head: HeadMap) -> None:
    plain = draw_structures(head, STILL, 3).numpy()
    thin = draw_structures(head, replace(STILL, atrophy=1), 3).numpy()
    csf, cortex = STRUCTURES.index("outer CSF"), STRUCTURES.index("cortex")
    changed = plain != thin
    assert (plain[changed] == cortex).all()
    assert (thin[changed] == csf).all()
    np.testing.assert_array_equal(changed, ndimage.binary_dilation(plain == csf) & (plain == cortex))


def test_t1_and_t2_order_the_tissues() -> None:
    csf, grey, white = (STRUCTURES.index(name) for name in ("lateral ventricle", "cortex", "white matter"))
    for seed in range(20):
        t1, t2 = (draw_brightness(_generator(seed), contrast) for contrast in ("t1", "t2"))
        assert t1[csf] < t1[grey] < t1[white]
        assert t2[csf] > t2[grey] > t2[white]
    free = [draw_brightness(_generator(seed), "any") for seed in range(40)]
    brighter = sum(bool(b[white] > b[grey]) for b in free)
    assert 10 < brighter < 30
    assert all(b[0] < 0.05 for b in free)


def test_coarse_voxels_hold_partial_volumes() -> None:
    structures = torch.from_numpy(make_structures((16, 12, 8)))
    brightness = torch.rand(len(STRUCTURES), generator=_generator())
    fine = brightness.numpy()[structures.numpy()]
    expected = fine.reshape(8, 2, 6, 2, 4, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(paint(structures, brightness, 2).numpy(), expected, rtol=1e-5)


def test_blur_is_gaussian() -> None:
    image = torch.rand((20, 24, 28), generator=_generator())
    expected = ndimage.gaussian_filter(image.double().numpy(), (1.2, 0, 0.7), mode="nearest", truncate=2.5)
    np.testing.assert_allclose(blur(image, (1.2, 0.0, 0.7)).numpy(), expected, atol=6e-3)


def test_noise_is_rician() -> None:
    image = torch.full((40, 40, 40), 0.5)
    for seed in range(3):
        noisy = draw_noise(image, _generator(seed), 0.2).double()
        draws = _generator(seed)
        deviation = 0.2 * float(torch.rand((), generator=draws))
        # E[M^2] = A^2 + 2 s^2
        assert float(noisy.square().mean()) == pytest.approx(0.25 + 2 * deviation**2, rel=0.02)
        assert (noisy >= 0).all()


def test_coarser_scans_keep_the_brightness_and_lose_the_detail() -> None:
    image = torch.rand((32, 32, 32), generator=_generator(1))
    rough = [draw_resolution(image, _generator(seed), voxel=1, thickest=6) for seed in range(12)]
    for found in rough:
        assert found.shape == image.shape
        assert float(found.mean()) == pytest.approx(float(image.mean()), abs=0.01)
        assert float(found.std()) <= float(image.std()) + 1e-6
    assert min(float(found.std()) for found in rough) < 0.6 * float(image.std())


def test_intensities_are_what_the_preprocessing_makes() -> None:
    image = 3 * torch.rand((24, 24, 24), generator=_generator(2)) + 1
    mask = torch.rand((24, 24, 24), generator=_generator(3)) < 0.7
    expected = NormalizeInsideMaskd("image", keep_outside=True)({"image": image[None].clone(), "mask": mask[None]})
    np.testing.assert_allclose(normalise(image, mask).numpy(), expected["image"][0].numpy(), atol=0.08)


def test_stripping_keeps_the_brain_and_labels_nothing_else(head: HeadMap) -> None:
    structures = draw_structures(head, STILL, 1)
    labels = class_labels(structures, 1, 1)
    mask = brain_mask(labels, 0)
    tissue = (labels > 0) & (labels != CLASSES.index("extra-ventricular CSF"))
    assert (mask | ~tissue).all()
    assert not mask[structures == STRUCTURES.index("skin and fat")].any()
    sample = synthesise(head, replace(MOVED, stripped=1), 4)
    assert not sample.labels[~sample.mask].any()


def test_maps_are_read_whatever_their_orientation(tmp_path: Path) -> None:
    labels = np.zeros((40, 44, 36), np.int16)
    labels[8:32, 8:36, 8:28] = 3
    labels[12:28, 12:32, 12:24] = 2
    labels[12:16, 12:32, 12:24] = 16
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "ras.nii.gz")
    turned = image.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nib.save(turned, tmp_path / "turned.nii.gz")
    one, other = (read_head_map(tmp_path / name) for name in ("ras.nii.gz", "turned.nii.gz"))
    assert torch.equal(one.structures, other.structures)
    assert one.centre == other.centre


def test_wrong_maps_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 2, np.int16), np.diag([2.0, 2, 2, 1])), tmp_path / "coarse.nii.gz")
    with pytest.raises(InputError, match="resample the label map to 1 mm"):
        read_head_map(tmp_path / "coarse.nii.gz")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 507, np.int16), np.eye(4)), tmp_path / "skin.nii.gz")
    with pytest.raises(InputError, match="holds no brain"):
        read_head_map(tmp_path / "skin.nii.gz")
