"""What data sets, models, options and machines are like, and what the user is told; see `test_bad_scans`."""

import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.pipelines.conftest import Run
from tests.pipelines.small_files import IMAGE, LABELS, image, save

NAMES = "0=BG,1=CSF,2=GM,3=WM"


def cohort(folder: Path, count: int = 4) -> Path:
    for number in range(count):
        save(folder, image(IMAGE + number), f"c{number}_t1.nii.gz")
        save(folder, image(np.roll(LABELS, number % 3, 2)), f"c{number}_seg.nii.gz")
    return folder


def relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray], *cases: int) -> None:
    for number in cases:
        path = folder / f"c{number}_seg.nii.gz"
        old = nib.load(path)
        save(folder, image(change(np.asanyarray(old.dataobj)), old.affine), path.name)


def other_grid(folder: Path) -> None:
    relabel(folder, lambda labels: labels[:-1], 1)


def other_place(folder: Path) -> None:
    path = folder / "c1_seg.nii.gz"
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    affine[0, 3] = 0.3
    save(folder, image(LABELS, affine), path.name)


def unknown_value(folder: Path) -> None:
    relabel(folder, lambda labels: np.where(labels == 3, 5, labels).astype(np.uint8), 1)


def fractions(folder: Path) -> None:
    relabel(folder, lambda labels: labels.astype(np.float32) * 0.999, 1)


def one_empty(folder: Path) -> None:
    relabel(folder, np.zeros_like, 1)


def all_empty(folder: Path) -> None:
    relabel(folder, np.zeros_like, 0, 1, 2, 3)


def class_in_one_case(folder: Path) -> None:
    relabel(folder, lambda labels: np.where(labels == 1, 2, labels).astype(np.uint8), 0, 1, 2)


def channel_missing(folder: Path) -> None:
    for number in (0, 1, 3):
        save(folder, image(IMAGE * 2 + number), f"c{number}_t2.nii.gz")


def same_subject(folder: Path) -> None:
    folds = [{"train": ["c1", "c2", "c3"], "val": ["c0"]}, {"train": ["c0", "c2", "c3"], "val": ["c1", "c2"]}]
    (folder / "folds.json").write_text(json.dumps(folds))


def unknown_case(folder: Path) -> None:
    (folder / "folds.json").write_text(
        json.dumps([{"train": ["c0", "c9"], "val": ["c1"]}, {"train": ["c1", "c2"], "val": ["c0"]}])
    )


def colliding(folder: Path) -> None:
    for kind in ("t1", "seg"):
        shutil.copyfile(folder / f"c1_{kind}.nii.gz", folder / f"C0_{kind}.nii.gz")


class Check(NamedTuple):
    """A row about a data set."""

    row: int
    what: str
    spoil: Callable[[Path], None]
    code: int
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


CHECK = (
    Check(0, "sound", lambda _folder: None, 0, ()),
    Check(21, "labels of another shape", other_grid, 3, ("c1", "11", "12", "E120")),
    Check(22, "labels elsewhere", other_place, 3, ("c1", "0.3", "E121")),
    Check(23, "unknown value", unknown_value, 3, ("c1", "5", "E122")),
    Check(23, "fractional labels", fractions, 3, ("c1", "0.999", "E122")),
    Check(24, "one empty label map", one_empty, 0, ("W205", "c1")),
    Check(24, "all empty", all_empty, 3, ("E123",)),
    Check(25, "class in one case only", class_in_one_case, 3, ("CSF", "fold", "E124")),
    Check(26, "channel missing", channel_missing, 3, ("c2", "E125"), ("--image", "*_t2.nii.gz")),
    Check(27, "case on both sides", same_subject, 3, ("c2", "E128"), ("--folds-file", "folds.json")),
    Check(28, "names that collide", colliding, 3, ("c0", "C0", "E127")),
    Check(29, "unknown case", unknown_case, 3, ("c9", "E128"), ("--folds-file", "folds.json")),
    Check(30, "fewer cases than folds", lambda _folder: None, 3, ("4", "9", "E129"), ("--folds", "9")),
)


@pytest.mark.parametrize("case", CHECK, ids=lambda case: f"{case.row} {case.what}")
def test_a_data_set(case: Check, run: Run, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "data")
    case.spoil(folder)
    options = [str(folder / part) if part == "folds.json" else part for part in case.options]
    patterns = ("--image", "*_t1.nii.gz", "--labels", "*_seg.nii.gz", "--label-names", NAMES)
    code, said = run("check", folder, *patterns, *options)
    assert code == case.code, said
    assert [word for word in case.words if word not in said] == [], said


class Evil:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


def as_pickle(folder: Path) -> Path:
    path = folder.with_name("model.pt")
    path.write_bytes(pickle.dumps(Evil()))
    return path


def as_checkpoint(folder: Path) -> Path:
    path = folder.with_name("model.pth")
    torch.save({"state_dict": Evil()}, path)
    return path


def cut(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    return folder


def changed(folder: Path) -> Path:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return folder


def resigned(folder: Path, **change: object) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
    sums = [
        (name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in ("model.safetensors", path.name)
    ]
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums))
    return folder


MODELS = {
    "31 pickle": (as_pickle, ("posix.system", "E501")),
    "31 checkpoint of torch": (as_checkpoint, ("posix.system", "E501")),
    "32 not whole": (cut, ("model.safetensors", "E502")),
    "32 changed": (changed, ("checksum", "E503")),
    "32 other network": (lambda folder: resigned(folder, net_options={"reduction": 4}), ("do not fit", "E504")),
    "32 newer": (lambda folder: resigned(folder, schema=99), ("upgrade voxpool", "E505")),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model(kind: str, run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = MODELS[kind]
    bad = make(Path(shutil.copytree(tiny_model, tmp_path / "model")))
    code, said = run("predict", save(tmp_path, image()), "--model", bad, "--out", tmp_path / "out")
    assert code == 5, said
    assert [word for word in words if word not in said] == [], said
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "arguments", "words"),
    [
        (34, ["--iteration", "3"], "--iterations"),
        (34, ["--iterations", "many"], "--iterations"),
        (34, ["--optimizer", "!!python/object:os.system"], "optimizer"),
    ],
)
def test_an_option(row: int, arguments: list[str], words: str, run: Run, tmp_path: Path) -> None:
    code, said = run("crossval", cohort(tmp_path / "data"), "--out", tmp_path / "run", *arguments)
    assert code == 2, (row, said)
    assert words in said
    assert not (tmp_path / "run").exists()


def test_34_an_export_without_a_target_or_size(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    for more, words in (((), "--bundle"), (("--onnx", tmp_path / "m.onnx"), "--size")):
        code, said = run("export", tiny_model, *more)
        assert code == 2, said
        assert words in said
    code, said = run("export", tiny_model, "--bundle", tmp_path / "bundle")
    assert (code, said.strip()) == (0, f"bundle: {tmp_path / 'bundle'}")


def test_35_a_folder_that_cannot_be_written(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, no folder")
    code, said = run("predict", save(tmp_path, image()), "--model", tiny_model, "--out", tmp_path / "out")
    assert code == 6, said
    assert "choose another --out folder" in said


def test_35_a_full_disk(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    scan, out = save(tmp_path, image()), tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        code, said = run("predict", scan, "--model", tiny_model, "--out", out, "--engine", "serial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 4, said
    assert "E602" in said
    assert [path.name for path in out.iterdir() if path.name != ".lock"] == []


def test_36_a_gpu_that_is_not_there(tiny_model: Path, tmp_path: Path) -> None:
    scan = save(tmp_path, image())
    command = [sys.executable, "-m", "voxpool_pipelines", "predict", scan, "--model", tiny_model, "--device", "cuda"]
    done = subprocess.run(
        [str(part) for part in (*command, "--out", tmp_path / "out")],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 6, done.stderr
    assert "E603" in done.stderr
    assert "Traceback" not in done.stderr
