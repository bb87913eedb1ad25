import importlib.util
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "sample_data" / "make_cohort.py"
HEADS = (1, 4, 8, 10, 17, 19)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_cohort", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def head_map():
    """A ball of brain in a bath of fluid that goes on into a neck, ids as FreeSurfer has them."""
    grid = np.stack(np.meshgrid(*(np.arange(64.0),) * 3, indexing="ij"))
    distance = np.sqrt(((grid - 32) ** 2).sum(0))
    ids = np.zeros((64, 64, 64), np.int16)
    ids[distance < 28] = 24
    ids[24:40, 24:40, :8] = 24
    ids[distance < 26] = 3
    ids[distance < 20] = 2
    ids[distance < 8] = 4
    ids[32, :, 45:] = np.where(ids[32, :, 45:] == 3, 24, ids[32, :, 45:])  # a sulcus, 1 voxel wide
    return ids


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for head in HEADS:
        nib.save(nib.Nifti1Image(head_map(), np.diag([1.0, 1, 1, 1])), folder / f"headmap_{head:02d}.nii.gz")
    return folder


def run(maps, out):
    command = [sys.executable, SCRIPT, "--maps", maps, "--out", out]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_script_makes_the_cohort_and_repeats_itself_bit_by_bit(maps, tmp_path):
    for out in (tmp_path / "a", tmp_path / "b"):
        done = run(maps, out)
        assert done.returncode == 0, done.stderr
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_labels_stand_where_the_map_has_them_in_world_space(maps, script):
    """Every file, whatever its orientation, is checked in millimetres against the analytic ball."""
    for number, recipe in enumerate(script.RECIPES):
        path = maps / f"headmap_{recipe.head:02d}.nii.gz"
        image, labels = script.make_case(path, recipe, np.random.default_rng(number))
        assert "".join(nib.aff2axcodes(labels.affine)) == recipe.orientation
        angle = np.deg2rad(recipe.tilt)
        tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        y = np.asarray(labels.dataobj)
        for members, radius in (((1,), 8), ((1, 3), 20)):
            voxels = np.argwhere(np.isin(y, members))
            world = nib.affines.apply_affine(labels.affine, voxels)
            np.testing.assert_allclose(world.mean(0), tilt @ [32, 32, 32], atol=0.35)
            assert len(voxels) * 2.5**3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)
        np.testing.assert_array_equal(image.affine, labels.affine)


def test_fluid_outside_the_brain_is_dropped_and_sulcal_fluid_is_dark_background(script):
    ids = head_map()
    inside = script.brain_neighbourhood(ids)
    assert not inside[24:40, 24:40, :4].any(), "the neck is no brain"
    sulcus = inside & (ids == 24)
    assert sulcus[32, 32, 55]
    fractions = script.tissue_fractions(ids, inside)
    np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-5)


def test_area_average_keeps_the_mean_and_weighs_by_overlap(script):
    line = np.arange(5, dtype=np.float32)
    np.testing.assert_allclose(script.area_average(line), [(0 + 1 + 2 * 0.5) / 2.5, (2 * 0.5 + 3 + 4) / 2.5])
    volume = np.random.default_rng(0).random((10, 15, 5), np.float32)
    assert script.area_average(volume).shape == (4, 6, 2)
    assert script.area_average(volume).mean() == pytest.approx(volume.mean(), rel=1e-5)


def test_missing_map_is_named(tmp_path):
    done = run(tmp_path, tmp_path / "out")
    assert done.returncode == 2
    assert "headmap_01.nii.gz is not there" in done.stderr
    assert not (tmp_path / "out").exists()
