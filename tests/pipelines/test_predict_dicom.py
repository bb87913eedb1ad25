"""`voxpool predict` on DICOM folders: the same labels as of the file made from them, and where they lie."""

import json
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from tests.io.dicom_files import turn, write_series
from tests.pipelines.conftest import Run
from tests.pipelines.small_files import save_untrained
from voxpool.io import read_dicom, read_labels

SHAPE = (24, 28, 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("models") / "model", seed=1)


@pytest.fixture
def array() -> np.ndarray:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    ball = 400 * (x**2 + y**2 + z**2 < 0.8)
    return (ball + np.random.default_rng(0).normal(100, 20, SHAPE) * (ball > 0)).clip(0).astype(np.int16)


def test_a_folder_of_patients_each_a_series(model: Path, array: np.ndarray, tmp_path: Path, run: Run) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_series(data / "one", array, rotation=turn(15))
    write_series(data / "two", array[::-1])
    (data / "two" / "readme.txt").write_text("no image")
    command = [sys.executable, "-m", "voxpool_pipelines", "predict", data, "--model", model, "--out", out]
    subprocess.run([*command, "--dicom-seg"], check=True)
    names = ("one.json", "one_labels.dcm", "one_labels.nii.gz", "two.json", "two_labels.dcm", "two_labels.nii.gz")
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == sorted(names)

    volume, labels = read_dicom(data / "one"), read_labels(out / "one_labels.nii.gz")
    assert labels.geometry.matches(volume.geometry)
    # two independent readers place both files on the scan
    corners = np.array([[0, 0, 0, 1], [*(n - 1 for n in SHAPE), 1]])
    scan = corners @ volume.geometry.affine.T
    np.testing.assert_allclose(corners @ nibabel.load(out / "one_labels.nii.gz").affine.T, scan, atol=0.01)
    image = sitk.ReadImage(out / "one_labels.nii.gz")
    for corner, place in zip(corners.tolist(), scan, strict=True):
        found = np.array(image.TransformIndexToPhysicalPoint(corner[:3])) * [-1, -1, 1]
        np.testing.assert_allclose(found, place[:3], atol=0.01)
    back = highdicom.seg.segread(out / "one_labels.dcm").get_volume(combine_segments=True)
    places = np.argwhere(back.array > 0)
    world = (places @ back.affine[:3, :3].T + back.affine[:3, 3]) * [-1, -1, 1]
    index = np.c_[world, np.ones(len(world))] @ np.linalg.inv(volume.geometry.affine).T
    np.testing.assert_allclose(index[:, :3], np.rint(index[:, :3]), atol=1e-3)
    assert (labels.array[tuple(np.rint(index[:, :3]).astype(int).T)] > 0).all()
    assert len(places) == (labels.array > 0).sum()

    # nothing of the patient, no folder, no identifier of the series
    text = (out / "one.json").read_text(encoding="utf-8")
    assert not [word for word in ("Test", "Patient", "1.2.3", str(tmp_path)) if word in text]
    code, said = run("predict", data, "--model", model, "--out", out, "--dicom-seg")
    assert code == 0
    assert "one: done before" in said


def test_of_several_series_one_is_named(model: Path, array: np.ndarray, tmp_path: Path, run: Run) -> None:
    write_series(tmp_path / "scan", array, uid="1.2.3", name="t1")
    write_series(tmp_path / "scan" / "more", array // 2, uid="1.2.4", name="t2")
    out = tmp_path / "out"
    code, said = run("predict", tmp_path / "scan", "--model", model, "--out", out)
    assert code == 4
    assert "holds 2 volumes" in said
    assert json.loads((out / "scan.json").read_text(encoding="utf-8"))["status"] == "failed"
    assert run("predict", tmp_path / "scan", "--series", "1.2.4", "--model", model, "--out", out)[0] == 0
    assert json.loads((out / "scan.json").read_text(encoding="utf-8"))["status"] in ("ok", "warn")
