"""What the scans of the world are like, and what the user is told: every row is a promise of exit code and words.

The numbers are those of one list, 1 to 40; rows 21 to 36 are in `test_bad_sets`, archives with strange members (33) in
`test_model_package`, memory that runs out (36) in `test_inference`, signals (40) in `test_predict_cohort`.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from tests.io.dicom_files import turn, write_series
from tests.pipelines.conftest import Run
from tests.pipelines.small_files import IMAGE, SHAPE, image, save


def patched(folder: Path, *patches: tuple[int, bytes], name: str = "x.nii") -> Path:
    """A NIfTI file with bytes of its header replaced."""
    data = bytearray(image().to_bytes())
    for place, value in patches:
        data[place : place + len(value)] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(bytes(data), mtime=0) if name.endswith(".gz") else data)
    return folder / name


def dims(*sizes: int) -> tuple[int, bytes]:
    return 40, np.array(sizes, "<i2").tobytes()


def written(folder: Path, content: bytes, name: str = "x.nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def floats(place: int, *values: float) -> tuple[int, bytes]:
    return place, np.array(values, "<f4").tobytes()


def truncated(folder: Path) -> Path:
    path = save(folder, image())
    path.write_bytes(path.read_bytes()[:-200])
    return path


def bomb(folder: Path) -> Path:
    """Zeros that a megabyte of gzip would unpack to."""
    header = bytearray(image().to_bytes()[:352])
    place, value = dims(3, 900, 900, 900)
    header[place : place + len(value)] = value
    return written(folder, gzip.compress(bytes(header) + bytes(10**8), 9, mtime=0))


def with_nan(folder: Path) -> Path:
    array = IMAGE.copy()
    array[3, 2, 1] = np.nan
    return save(folder, image(array))


def coloured(folder: Path) -> Path:
    pixels = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return save(folder, nib.Nifti1Image(pixels, np.eye(4)))


def no_place(folder: Path) -> Path:
    made = image()
    made.set_sform(None, 0)
    made.set_qform(None, 0)
    return save(folder, made)


def two_places(folder: Path) -> Path:
    made = image()
    made.set_qform(np.diag([-1.0, 1.0, 1.2, 1.0]), 1)
    return save(folder, made)


def sheared(folder: Path) -> Path:
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    affine[0, 1] = 0.3
    made = image(affine=affine)
    made.set_qform(None, 0)  # cannot hold a shear
    return save(folder, made)


def loop(folder: Path) -> Path:
    folder.mkdir()
    (folder / "x.nii.gz").symlink_to(folder / "x.nii.gz")
    return folder / "x.nii.gz"


class Predict(NamedTuple):
    """A row about one scan."""

    row: int
    what: str
    make: Callable[[Path], Path]
    code: int
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


PREDICT = (
    Predict(1, "missing", lambda f: f / "x.nii.gz", 3, ("x.nii.gz: no such file", "E101")),
    Predict(2, "empty", lambda f: written(f, b""), 4, ("x.nii.gz: is empty (0 bytes)", "copy it again", "E102")),
    Predict(3, "text named .nii.gz", lambda f: written(f, b"id,age\n1,30\n" * 40), 4, ("not gzip", "E103")),
    Predict(
        3,
        "plain .nii named .nii.gz",
        lambda f: written(f, image().to_bytes()),
        4,
        ("not gzip", "rename it to .nii", "E103"),
    ),
    Predict(4, "cut off", truncated, 4, ("ends early", "bytes", "E104")),
    Predict(5, "picture", lambda f: written(f, b"\x89PNG\r\n", "x.png"), 4, (".nii.gz", ".mgz", ".nrrd", "E105")),
    Predict(5, "Matlab", lambda f: written(f, b"MATLAB 5.0", "x.mat"), 4, ("x.mat", "E105")),
    Predict(6, "dimensions too large", lambda f: patched(f, dims(3, 32767, 32767, 32767)), 4, ("32767", "E106")),
    Predict(7, "bomb", bomb, 4, ("E106",)),
    Predict(8, "no voxel", lambda f: patched(f, dims(3, 12, 0, 10)), 4, ("length 0", "E107")),
    Predict(8, "negative length", lambda f: patched(f, dims(3, 12, -14, 10)), 4, ("length -14", "E107")),
    Predict(9, "2D", lambda f: save(f, image(IMAGE[:, :, 0])), 4, ("2-D", "E108")),
    Predict(10, "4D", lambda f: save(f, image(np.stack([IMAGE] * 5, -1))), 4, ("5 volumes", "--volume 0 to 4", "E109")),
    Predict(10, "4D, chosen", lambda f: save(f, image(np.stack([IMAGE] * 5, -1))), 0, (), ("--volume", "3")),
    Predict(10, "4D of one volume", lambda f: save(f, image(IMAGE[..., None])), 0, ()),
    Predict(11, "colours", coloured, 4, ("RGB", "E110")),
    Predict(11, "complex", lambda f: save(f, image(IMAGE.astype(np.complex64))), 4, ("complex", "E110")),
    Predict(12, "NaN", with_nan, 4, ("1 ", "NaN", "(3, 2, 1)", "--nan-to-zero", "E111")),
    Predict(12, "NaN, to be 0", with_nan, 0, (), ("--nan-to-zero",)),
    Predict(13, "constant", lambda f: save(f, image(np.full(SHAPE, 7, np.int16))), 4, ("constant", "E116")),
    Predict(14, "NaN in the affine", lambda f: patched(f, floats(280, np.nan)), 4, ("E112",)),
    Predict(14, "singular", lambda f: patched(f, floats(280, 0, 0, 0, 0)), 4, ("singular", "E112")),
    Predict(15, "no position", no_place, 4, ("left and right", "--assume-affine", "E113")),
    Predict(15, "no position, accepted", no_place, 0, (), ("--assume-affine",)),
    Predict(16, "two positions", two_places, 4, ("sform", "qform", "--prefer", "E114")),
    Predict(16, "two positions, one chosen", two_places, 0, (), ("--prefer", "sform")),
    Predict(17, "sheared", sheared, 0, ("W202",)),
    Predict(18, "spacing 0", lambda f: patched(f, floats(80, 0.0)), 4, ("E115",)),
    Predict(18, "spacing negative", lambda f: patched(f, floats(80, -1.0)), 4, ("E115",)),
    Predict(18, "metres", lambda f: save(f, image(affine=np.diag([1000, 1000, 1200, 1.0]))), 0, ("unit", "W203")),
    Predict(19, "long voxels", lambda f: save(f, image(affine=np.diag([1, 1, 9, 1.0]))), 0, ("9 times", "W204")),
    Predict(38, "loop of links", loop, 4, ("x.nii.gz", "E134")),
    Predict(38, "name of 300 characters", lambda f: f / ("n" * 300 + ".nii.gz"), 3, ("E1",)),
    Predict(38, "name of 254 characters", lambda f: save(f, image(), "n" * 247 + ".nii.gz"), 3, ("too long", "E134")),
    Predict(38, "name of 237 characters", lambda f: save(f, image(), "n" * 230 + ".nii.gz"), 0, ()),
    Predict(38, "accents and spaces", lambda f: save(f / "Lücke ß 脳", image(), "scan 1 é.nii.gz"), 0, ()),
    Predict(39, "one slice", lambda f: save(f, image(IMAGE[:, :, 5:6])), 0, ()),
    Predict(39, "smaller than the network's stride", lambda f: save(f, image(IMAGE[4:7, 5:8, 3:6])), 0, ()),
)


@pytest.mark.parametrize("case", PREDICT, ids=lambda case: f"{case.row} {case.what}")
def test_a_scan(case: Predict, run: Run, tiny_model: Path, tmp_path: Path) -> None:
    scan, out = case.make(tmp_path / "in"), tmp_path / "out"
    code, said = run("predict", scan, "--model", tiny_model, "--out", out, "--engine", "serial", *case.options)
    assert code == case.code, said
    sidecars = list(out.glob("*.json")) if out.exists() else []
    told = said + "".join(path.read_text(encoding="utf-8") for path in sidecars)
    assert [word for word in case.words if word not in told] == [], told
    if code == 3:  # nothing was begun
        assert not list(out.glob("*_labels.nii.gz"))
        return
    (sidecar,) = sidecars
    record = json.loads(sidecar.read_text(encoding="utf-8"))
    assert (record["status"] == "failed") == (code == 4)
    outputs = list(out.glob("*_labels.nii.gz"))
    assert len(outputs) == (code == 0)
    if code == 0:
        before, after = nib.load(scan), nib.load(outputs[0])
        assert after.shape == before.shape[:3]
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)


def test_20_another_orientation_is_restored(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    turned = np.array([[0, 0, -1.2, 9], [-1.0, 0, 0, 4], [0, 1.0, 0, -3], [0, 0, 0, 1]])
    scan = save(tmp_path, image(affine=turned))
    assert run("predict", scan, "--model", tiny_model, "--out", tmp_path / "out")[0] == 0
    found = nib.load(tmp_path / "out" / "x_labels.nii.gz")
    assert found.shape == SHAPE
    np.testing.assert_allclose(found.affine, turned, atol=1e-5)


SLICES = np.random.default_rng(1).integers(1, 999, (9, 10, 6))


def two_series(folder: Path) -> None:
    write_series(folder, SLICES, uid="1.2.3")
    write_series(folder / "more", SLICES // 2, uid="1.2.4")


def mixture(folder: Path) -> None:
    write_series(folder, SLICES)
    write_series(folder / "more", SLICES[:, :, :2], rotation=turn(90))


DICOM = {
    "two series": (two_series, 4, ("2 volumes", "--series", "E130"), ()),
    "one of two series": (two_series, 0, (), ("--series", "1.2.4")),
    "missing slice": (lambda folder: write_series(folder, SLICES, skip=(3,)), 4, ("slice 3", "E131"), ()),
    "tilted gantry": (lambda folder: write_series(folder, SLICES, shear=0.5), 4, ("tilted gantry", "E132"), ()),
    "mixed orientations": (mixture, 4, ("directions", "E133"), ()),
}


@pytest.mark.parametrize("kind", DICOM)
def test_37_a_dicom_folder(kind: str, run: Run, tiny_model: Path, tmp_path: Path) -> None:
    make, wanted, words, options = DICOM[kind]
    make(tmp_path / "scan")
    out = tmp_path / "out"
    code, said = run("predict", tmp_path / "scan", "--model", tiny_model, "--out", out, *options)
    assert code == wanted, said
    assert [word for word in words if word not in said] == [], said
    assert len(list(out.glob("*_labels.nii.gz"))) == (wanted == 0)
