"""Cross-validation end to end, in real processes: killed and resumed, deterministic, complete."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from tests.pipelines.conftest import Run
from voxpool.model_package import load_package

OPTIONS = [
    "--image", "*_t1.nii.gz", "--labels", "*_labels.nii.gz", "--reductions", "8", "--iterations", "12",
    "--crop", "16", "--finetune-share", "0.5", "--n-segments", "150", "--deterministic",
]  # fmt: skip
# the weights are the same bytes for one number of threads
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
VARIANTS = ["base", "control", *(f"{head}-{kind}" for head in ("v1", "v2", "v3") for kind in ("block", "slic"))]


def _command(cohort: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "voxpool_pipelines", "crossval", str(cohort), "--out", str(out), *OPTIONS, *more]


def _run(cohort: Path, out: Path, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        _command(cohort, out, *more), capture_output=True, encoding="utf-8", check=False, env=ENVIRONMENT
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = _run(cohort, out)
    assert done.stdout.splitlines()[-1].endswith("report.html")
    return out


def test_every_variant_and_case_is_there_once(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    names = [row["id"] for row in report["variants"]]
    assert sorted(names) == sorted(f"voxresnet-r8-{variant}" for variant in VARIANTS)
    with (finished / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        cases = sorted({row["case_id"] for row in rows if row["variant"] == name})
        assert cases == [f"sub-{number}" for number in range(6)]
    # each case comes from the fold that held it out
    folds = json.loads((finished / "folds.json").read_text(encoding="utf-8"))
    assert all(row["case_id"] in folds[int(row["fold"])]["val"] for row in rows)
    assert json.loads((finished / "run.json").read_text(encoding="utf-8"))["status"] == "done"


def test_scores_are_those_of_the_stored_predictions(finished: Path, cohort: Path) -> None:
    for result in sorted(finished.glob("variants/*-v3-slic/fold*/result.json")):
        for row in json.loads(result.read_text(encoding="utf-8"))["cases"]:
            truth = nib.load(cohort / row["case_id"] / f"{row['case_id']}_labels.nii.gz")
            found = nib.load(result.parent / "predictions" / f"{row['case_id']}.nii.gz")
            np.testing.assert_allclose(found.affine, truth.affine)
            a, b = np.asarray(found.dataobj), np.asarray(truth.dataobj)
            for label, name in ((1, "CSF"), (2, "GM"), (3, "WM")):
                total = np.sum(a == label) + np.sum(b == label)
                assert row["classes"][name]["dice"] == pytest.approx(2 * np.sum((a == label) & (b == label)) / total)
            assert set(row["oracle_dice"]) == {"CSF", "GM", "WM"}


def test_heads_start_from_the_base_of_their_fold(finished: Path) -> None:
    for fold in range(3):
        base, _ = load_package(finished / f"variants/voxresnet-r8-base/fold{fold}/model")
        for variant in VARIANTS[1:]:
            net, info = load_package(finished / f"variants/voxresnet-r8-{variant}/fold{fold}/model")
            assert info.training["fold"] == fold
            weights = dict(net.state_dict())
            first = weights.get("stem.0.weight", weights.get("base.stem.0.weight"))
            # trained on for a few small steps, not anew
            assert np.abs(first.numpy() - base.state_dict()["stem.0.weight"].numpy()).max() < 0.1


def test_two_runs_and_a_killed_one_have_the_same_bytes(cohort: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    kills = 0
    for wanted in ("voxresnet-r8-base/fold0/result.json", "voxresnet-r8-v1-slic/fold1/training/checkpoint.pt"):
        process = subprocess.Popen(
            _command(cohort, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        )
        while process.poll() is None and not (out / "variants" / wanted).exists():
            time.sleep(0.01)  # the kill must fall into the step that has just begun
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2
    before = {path: path.stat().st_mtime_ns for path in out.glob("variants/*/fold0/result.json")}
    assert before
    _run(cohort, out)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # what was done is not done again
    assert (out / "cases.csv").read_bytes() == (finished / "cases.csv").read_bytes()
    assert not list(out.rglob("*.part*"))


def test_folds_side_by_side_give_the_same_bytes_though_one_is_killed(
    cohort: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ("--heads", "base v3", "--segments", "slic", "--no-control", "--engine", "dask", "--workers", "2")
    driver = subprocess.Popen(
        _command(cohort, out, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
    )
    while driver.poll() is None and len(list(out.glob("variants/*/fold*/training"))) < 2:
        time.sleep(0.01)  # the kill must fall into the first trainings
    (server,) = (one for one in psutil.Process(driver.pid).children() if "forkserver" in " ".join(one.cmdline()))
    assert len(server.children()) == 2
    server.children()[0].send_signal(signal.SIGKILL)
    said = driver.communicate(timeout=300)[0].decode()
    assert driver.returncode == 0, said
    assert said.count("foreground Dice") == 6
    for name in ("voxresnet-r8-base", "voxresnet-r8-v3-slic"):
        for place in ("model/model.safetensors", "predictions/*.nii.gz"):
            found = sorted((out / "variants" / name).glob(f"fold*/{place}"))
            assert len(found) == (3 if place.startswith("model") else 6)
            assert [path.read_bytes() for path in found] == [
                (finished / path.relative_to(out)).read_bytes() for path in found
            ]


def test_minutes_are_for_one_process(cohort: Path, tmp_path: Path, run: Run) -> None:
    options = ("--image", "*_t1.nii.gz", "--labels", "*_labels.nii.gz", "--minutes", "1", "--engine", "dask")
    code, said = run("crossval", cohort, "--out", tmp_path / "run", *options)
    assert code == 2
    assert "give --iterations" in said


def test_a_run_goes_on_only_with_its_options(finished: Path, cohort: Path) -> None:
    done = _run(cohort, finished, "--compactness", "0.3", code=2)
    assert "was started with --compactness 0.1, now it is 0.3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_has_one_owner(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = subprocess.Popen(
        _command(cohort, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        while first.poll() is None and not (out / "run.json").exists():
            time.sleep(0.01)  # until the first run holds the folder
        assert "is in use by another voxpool run" in _run(cohort, out, code=2).stderr
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130


def test_segresnet_and_minutes(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [o for o in OPTIONS if o not in ("--iterations", "12", "--deterministic", "--n-segments", "150")]
    command = [
        sys.executable, "-m", "voxpool_pipelines", "crossval", str(cohort), "--out", str(out), *options,
        "--minutes", "0.02", "--nets", "segresnet", "--heads", "base v3", "--segments", "slic", "--no-control",
        "--target-oracle", "0.7", "--only-folds", "1", "--crop", "32",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "iterations fit into 0.02 minutes" in done.stdout
    chosen = json.loads((out / "supervoxels/fold1-slic.json").read_text(encoding="utf-8"))
    assert chosen["oracle_dice"] >= 0.7 or not chosen["reached"]
    result = json.loads((out / "variants/segresnet-v3-slic/fold1/result.json").read_text(encoding="utf-8"))
    assert result["n_segments"] == chosen["n_segments"]
    # chosen on cases that the fold trains on
    folds = json.loads((out / "folds.json").read_text(encoding="utf-8"))
    assert set(chosen["cases"]) <= set(folds[1]["train"])
    assert not (out / "variants/segresnet-base/fold0").exists()
