"""`voxpool supervoxels`: labels on the grid of the input, measures that are true, a picture that shows the borders."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.conftest import Run
from voxpool.io import read_labels, read_volume
from voxpool.supervoxels import slic


@pytest.fixture(scope="module")
def source(cohort: Path) -> tuple[Path, Path]:
    images = sorted(path for path in cohort.rglob("*.nii.gz") if "seg" not in path.name and "label" not in path.name)
    truths = sorted(path for path in cohort.rglob("*.nii.gz") if path not in images)
    return images[0], truths[0]


@pytest.fixture(scope="module")
def made(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("made") / "new" / "cut.nii.gz"
    options = ["--n-segments", "300", "--labels", source[1], "--out", out]
    command = [sys.executable, "-m", "voxpool_pipelines", "supervoxels", source[0], *options]
    return out, subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


def test_the_labels_are_those_of_slic_on_the_grid_of_the_input(
    made: tuple[Path, str], source: tuple[Path, Path]
) -> None:
    volume, labels = read_volume(source[0]), read_labels(made[0])
    np.testing.assert_array_equal(labels.geometry.affine, volume.geometry.affine)
    mask = volume.array != volume.array.min()
    expected = slic(volume.array, 300, spacing=volume.geometry.spacing, mask=mask)
    np.testing.assert_array_equal(labels.array, expected + 1)


def test_the_measures_are_true(made: tuple[Path, str]) -> None:
    labels = read_labels(made[0]).array
    facts = json.loads(made[0].with_name("cut.json").read_text(encoding="utf-8"))
    quality = facts["quality"]
    sizes = np.bincount(labels[labels > 0])[1:]
    assert quality["num_segments"] == labels.max() == len(sizes)
    assert quality["sizes"]["median"] == np.median(sizes)
    assert 0.8 < quality["accuracy"] <= 1
    assert len(quality["oracle_dice"]) == 4
    assert facts["use"] == "research use only"
    assert f"{quality['num_segments']} supervoxels in" in made[1]


def test_the_picture_shows_three_planes_with_borders(made: tuple[Path, str]) -> None:
    data = made[0].with_name("cut.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.setdefault(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += length + 12
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]
    border = len(chunks[b"PLTE"]) // 3 - 1
    drawn = (rows == border).any(axis=0)
    assert 0.02 < (rows == border).mean() < 0.5
    # borders in the left, the middle and the right third
    assert all(drawn[part].any() for part in np.array_split(np.arange(width), 3))


def test_mistakes_are_told_in_a_sentence(source: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    assert run("supervoxels", source[0], "--out", tmp_path / "a.png") == (
        2,
        "voxpool: --out must name a label map that ends in .nii.gz or .nii, got 'a.png'\n",
    )
    code, said = run("supervoxels", source[0], "--out", source[0])
    assert code == 2
    assert "--out is the input itself" in said
    assert run("supervoxels", tmp_path / "missing.nii.gz", "--out", tmp_path / "a.nii.gz")[0] == 3
    assert not list(tmp_path.iterdir())
