"""A finished cross-validation run of small synthetic volumes, as `voxpool crossval` writes it; the command itself."""

import json
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.pipelines.small_files import save_untrained
from voxpool.metrics import dice_background, score_case
from voxpool_pipelines import cli

LABELS = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}
SHAPE = (20, 26, 18)  # right, anterior, superior
SPACING = (1.5, 1.0, 1.2)
HEADS = (
    ("base", None, 0.16),
    ("control", None, 0.15),
    ("v1", "block", 0.24),
    ("v1", "slic", 0.20),
    ("v2", "block", 0.26),
    ("v2", "slic", 0.18),
    ("v3", "block", 0.13),
    ("v3", "slic", 0.10),
)


Run = Callable[..., tuple[int, str]]


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def stored(array: np.ndarray) -> np.ndarray:
    """Voxels in the order of the files: left, inferior, anterior."""
    return array[::-1, :, ::-1].transpose(0, 2, 1)


def save(path: Path, array: np.ndarray) -> None:
    """Write an array given in RAS order the way a scanner might: in other axes, with the matching affine."""
    x, y, z = SPACING
    affine = np.array([[-x, 0, 0, x * (SHAPE[0] - 1)], [0, 0, y, 0], [0, -z, 0, z * (SHAPE[2] - 1)], [0, 0, 0, 1.0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored(array)), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)


def make_truth(number: int) -> np.ndarray:
    """Shells of CSF, GM and WM, with a pocket of CSF in the right front only."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    radius = np.sqrt((x / (0.8 + 0.01 * number)) ** 2 + (y / 0.85) ** 2 + (z / 0.9) ** 2)
    truth = np.digitize(-radius, [-1.0, -0.85, -0.6]).astype(np.int16)
    truth[(x > 0.2) & (y > 0.1) & (radius < 0.55)] = 1
    return truth


def corrupt(truth: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Some voxels of the head take the label of a random neighbour along y."""
    moved = np.roll(truth, random.choice([-1, 1]), axis=1)
    return np.where(random.random(truth.shape) < share, moved, truth).astype(np.int16)


def make_run(folder: Path, *, cases: int = 6, folds: int = 3) -> Path:
    """Write a run with two reductions, every head and both kinds of supervoxels."""
    run = folder / "run"
    random = np.random.default_rng(5)
    ids = [f"case{number + 1:02d}" for number in range(cases)]
    held_out = [ids[fold::folds] for fold in range(folds)]
    truths = {case_id: make_truth(number) for number, case_id in enumerate(ids)}
    for case_id, truth in truths.items():
        image = truth * 100 + random.normal(0, 8, truth.shape) * (truth > 0)
        save(folder / "data" / f"{case_id}_t1.nii.gz", image.astype(np.float32))
        save(folder / "data" / f"{case_id}_labels.nii.gz", truth)
    write_json(
        run / "run.json",
        {
            "schema": 1,
            "status": "done",
            "name": "Shells & <pockets>",
            "data": {
                "name": "shells",
                "convention": "pockets count as CSF",
                "label_names": {str(label): name for label, name in LABELS.items()},
                "cases": cases,
            },
            "config": {"iterations": 600, "reductions": [4, 8], "learning_rate": 0.001, "only_folds": None},
            "versions": {"voxpool": "0.1.0", "torch": "2.13.0"},
            "seed": 7,
            "device": "cpu",
        },
    )
    write_json(
        run / "folds.json",
        [{"train": [each for each in ids if each not in val], "val": val} for val in held_out],
    )
    write_json(
        run / "dataset.json",
        {
            "cases": [
                {
                    "id": case_id,
                    "images": [str(folder / "data" / f"{case_id}_t1.nii.gz")],
                    "labels": str(folder / "data" / f"{case_id}_labels.nii.gz"),
                    "subject": case_id,
                }
                for case_id in ids
            ]
        },
    )
    for reduction in (4, 8):
        for head, segments, share in HEADS:
            variant_id = "-".join(["voxresnet", f"r{reduction}", head, *([segments] if segments else [])])
            for fold, val in enumerate(held_out):
                place = run / "variants" / variant_id / f"fold{fold}"
                rows = []
                for case_id in val:
                    prediction = corrupt(truths[case_id], share + 0.01 * reduction, random)
                    if (variant_id, case_id) == ("voxresnet-r8-v1-block", "case02"):
                        prediction[prediction == 1] = 2
                    save(place / "predictions" / f"{case_id}.nii.gz", prediction)
                    rows.append(make_row(case_id, fold, prediction, truths[case_id], segments, reduction, random))
                write_json(
                    place / "result.json",
                    {
                        "variant": {
                            "id": variant_id,
                            "net": "voxresnet",
                            "reduction": reduction,
                            "head": head,
                            "segments": segments,
                        },
                        "fold": fold,
                        "parameters": 9876 if reduction == 8 else 57012,
                        "iterations": 600,
                        "train_seconds": 60.5,
                        "compactness": 0.1 if segments == "slic" else None,
                        "n_segments": 300 if segments else None,
                        "seed": 7,
                        "cases": rows,
                    },
                )
    return run


def make_row(
    case_id: str,
    fold: int,
    prediction: np.ndarray,
    target: np.ndarray,
    segments: str | None,
    reduction: int,
    random: np.random.Generator,
) -> dict:
    scores = score_case(prediction, target, spacing=SPACING, label_names=LABELS)
    oracle = {"block": 0.70, "slic": 0.93}
    return {
        "case_id": case_id,
        "fold": fold,
        "seconds": 8 / reduction + (0.4 if segments else 0) + 0.1 * random.random(),
        "supervoxel_seconds": 0.3 if segments else None,
        "num_segments": 290 + len(case_id) if segments else None,
        "oracle_dice": {name: oracle[segments] + 0.01 * label for label, name in LABELS.items() if label}
        if segments
        else None,
        "dice_background": dice_background(prediction, target),
        "classes": {
            name: {
                key: None if value != value else value  # noqa: PLR0124 -- NaN
                for key, value in vars(score).items()
            }
            for name, score in scores.items()
        },
    }


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; tests that change it copy it first."""
    return make_run(tmp_path_factory.mktemp("crossval"))


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command, as `voxpool` runs it, in this process: its exit code and all that it says; of a mistake one line."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers, formatting = logging.getLogger().handlers, warnings.formatwarning

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["voxpool", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        if "voxpool: " in said.err:
            assert said.err.startswith("voxpool: ")
            assert said.err.count("\n") == 1
        return int(end.value.code or 0), said.out + said.err

    yield call
    for number, handler in kept.items():
        signal.signal(number, handler)
    logging.captureWarnings(False)
    logging.getLogger().handlers, warnings.formatwarning = handlers, formatting


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network."""
    return save_untrained(tmp_path_factory.mktemp("models") / "model", seed=0)
