"""The command line: light to start, one sentence and an exit code for every mistake, nothing half-written."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.pipelines.conftest import Run
from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.errors import InputError
from voxpool.inference import Segmenter
from voxpool.io import read_volume
from voxpool.model_package import ModelInfo, save_package
from voxpool.nets import create_net
from voxpool_pipelines import segment_scan
from voxpool_pipelines.cli import join_lists

PATTERNS = ["--image", "*_t1.nii.gz", "--labels", "*_labels.nii.gz"]


def voxpool(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxpool_pipelines", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def data(cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cohort, tmp_path / "data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head="v3")
    torch.nn.init.normal_(net.supervoxel_classifier.weight)
    info = ModelInfo(
        net="voxresnet", net_options={"reduction": 8}, head="v3", channels=("T1",),
        label_names={0: "BG", 1: "CSF", 2: "GM", 3: "WM"}, convention="test",
        preprocess=PreprocessConfig(), supervoxels=SupervoxelConfig("slic", 150),
    )  # fmt: skip
    return save_package(net, info, tmp_path_factory.mktemp("models") / "model")


@pytest.mark.parametrize("arguments", [["--help"], ["crossval", "--help"], ["--version"], ["predict", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, voxpool_pipelines.cli as cli\n"
        f"sys.argv = ['voxpool', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'monai', 'numba', 'numpy', 'scipy', 'nibabel', 'napari'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "voxpool" in done.stdout


def test_no_command_shows_the_help() -> None:
    done = voxpool(code=2)
    assert "crossval" in done.stdout + done.stderr


def _relabel(path: Path, change) -> None:
    image = nib.load(path)
    array = change(np.asanyarray(image.dataobj).astype(np.float32))
    nib.save(nib.Nifti1Image(array, image.affine), path)


def _spoil_grid(data: Path) -> None:
    _relabel(data / "sub-1/sub-1_labels.nii.gz", lambda a: a[:-1])


def _spoil_value(data: Path) -> None:
    _relabel(data / "sub-1/sub-1_labels.nii.gz", lambda a: np.where(a == 3, 7, a))


def _spoil_nan(data: Path) -> None:
    _relabel(data / "sub-1/sub-1_t1.nii.gz", lambda a: np.where(a == a.max(), np.nan, a))


def _spoil_4d(data: Path) -> None:
    _relabel(data / "sub-1/sub-1_t1.nii.gz", lambda a: np.stack([a, a], -1))


def _spoil_truncated(data: Path) -> None:
    path = data / "sub-1/sub-1_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])


def _spoil_class(data: Path) -> None:
    for number in range(5):
        _relabel(data / f"sub-{number}/sub-{number}_labels.nii.gz", lambda a: np.where(a == 1, 0, a))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_spoil_grid, ["sub-1", "35", "36"]),
        (_spoil_value, ["sub-1", "7"]),
        (_spoil_nan, ["sub-1_t1.nii.gz", "NaN"]),
        (_spoil_4d, ["sub-1_t1.nii.gz", "2 volumes"]),
        (_spoil_truncated, ["sub-1_t1.nii.gz"]),
        (_spoil_class, ["CSF", "fold"]),
    ],
)
@pytest.mark.parametrize("command", ["check", "crossval"])
def test_a_bad_data_set_ends_before_training(
    command: str, spoil, words: list[str], data: Path, tmp_path: Path, run: Run
) -> None:
    spoil(data)
    more = ["--out", tmp_path / "run", "--iterations", "1"] if command == "crossval" else []
    names = ["--label-names", "0=BG,1=CSF,2=GM,3=WM"]
    code, said = run(command, data, *PATTERNS, *names, *more)
    assert code == 3
    assert said.splitlines()[-1].startswith("voxpool: ")
    shown = " ".join(said.split())
    for word in words:
        assert word in shown
    assert not (tmp_path / "run/variants").exists()


def test_missing_and_too_few_files_are_named(data: Path, tmp_path: Path, run: Run) -> None:
    code, said = run("check", tmp_path / "nowhere", *PATTERNS)
    assert code == 3
    assert "nowhere" in said
    (data / "sub-1/sub-1_labels.nii.gz").unlink()
    code, said = run("check", data, *PATTERNS)
    assert code == 0
    assert "5 cases" in said
    few = tmp_path / "few"
    shutil.copytree(data / "sub-0", few / "sub-0")
    shutil.copytree(data / "sub-2", few / "sub-2")
    code, said = run("check", few, *PATTERNS)
    assert code == 3
    assert "2" in said
    assert "3 folds" in said


def test_a_subject_on_both_sides_is_refused(data: Path, tmp_path: Path, run: Run) -> None:
    manifest = data / "cases.csv"
    rows = ["id,image,labels,subject"]
    rows += [f"c{n},sub-{n}/sub-{n}_t1.nii.gz,sub-{n}/sub-{n}_labels.nii.gz,s{n // 2}" for n in range(6)]
    manifest.write_text("\n".join(rows) + "\n")
    folds = tmp_path / "folds.json"
    ids = [f"c{n}" for n in range(6)]
    folds.write_text(
        json.dumps([{"train": [i for i in ids if i not in ids[k::3]], "val": ids[k::3]} for k in range(3)])
    )
    code, said = run("check", manifest, "--folds-file", folds)
    assert code == 3
    assert "s0" in said
    assert run("check", manifest)[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--iterations", "5", "--minutes", "1"], "either --iterations or --minutes"),
        ([], "either --iterations or --minutes"),
        (["--iterations", "5", "--heads", "v9"], "unknown head 'v9'"),
        (["--iterations", "5", "--reductions", "x"], "--reductions takes int values"),
        (["--iterations", "5", "--segments", "cubes"], "--segments"),
        (["--minutes", "1", "--deterministic"], "--deterministic needs --iterations"),
        (["--iterations", "5", "--crop", "20"], "multiple of 8"),
        (["--iterations", "5", "--only-folds", "3"], "folds 0 to 2"),
        (["--iterations", "5", "--device", "abacus"], "unknown device 'abacus'"),
        (["--iterations", "5", "--nets", "unet"], "unknown network 'unet'"),
        (["--iterations", "5", "--reductions", "3"], "reduction must divide 32, got 3"),
    ],
)
def test_wrong_options_end_with_two(options: list[str], words: str, cohort: Path, tmp_path: Path, run: Run) -> None:
    code, said = run("crossval", cohort, *PATTERNS, "--out", tmp_path / "run", *options)
    assert code == 2
    assert words in said


def test_values_of_a_list_need_no_quotes() -> None:
    words = "crossval DATA --reductions 8 4 --heads base v1 v3 --segments slic --only-folds 0 2 --folds 3 --out RUN"
    assert join_lists(words.split()) == [
        "crossval", "DATA", "--reductions", "8 4", "--heads", "base v1 v3", "--segments", "slic",
        "--only-folds", "0 2", "--folds", "3", "--out", "RUN",
    ]  # fmt: skip
    assert join_lists(["crossval", "--reductions", "8 4", "DATA"]) == ["crossval", "--reductions", "8 4", "DATA"]
    assert join_lists(["--nets"]) == ["--nets"]


def test_predict_writes_labels_on_the_inputs_grid(cohort: Path, model: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    broken = tmp_path / "broken_t1.nii.gz"
    broken.write_bytes(b"no gzip")
    inputs = [cohort / "sub-1/sub-1_t1.nii.gz", broken, cohort / "sub-2/sub-2_t1.nii.gz"]
    done = voxpool("predict", *inputs, "--model", model, "--out", out, "--uncertainty", code=4)
    assert "2 of 3 segmented" in done.stdout
    segmenter = Segmenter.load(model)
    for name in ("sub-1_t1", "sub-2_t1"):
        source = nib.load(cohort / name[:5] / f"{name}.nii.gz")
        found = nib.load(out / f"{name}_labels.nii.gz")
        assert found.shape == source.shape
        np.testing.assert_allclose(found.affine, source.affine)
        want = segmenter.segment(read_volume(cohort / name[:5] / f"{name}.nii.gz"))
        np.testing.assert_array_equal(np.asarray(found.dataobj), want.labels)
        doubts = np.asarray(nib.load(out / f"{name}_uncertainty.nii.gz").dataobj)
        expected = np.where(want.segments < 0, 0, 100 * want.uncertainty[want.segments])
        np.testing.assert_allclose(doubts, expected, atol=0.51)
        assert doubts.any()
        record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert list(record["seconds"]) == ["read", "prepare", "supervoxels", "network", "labels", "write"]
        assert record["status"] in ("ok", "warn")
        assert record["volumes_ml"] == pytest.approx(want.volumes_ml, abs=1e-3)
        assert str(cohort) not in json.dumps(record)
    assert json.loads((out / "broken_t1.json").read_text(encoding="utf-8"))["status"] == "failed"
    assert not (out / "broken_t1_labels.nii.gz").exists()

    when = (out / "sub-1_t1_labels.nii.gz").stat().st_mtime_ns
    code, said = run("predict", *inputs, "--model", model, "--out", out)
    assert code == 4
    assert "sub-1_t1: done before" in said
    assert (out / "sub-1_t1_labels.nii.gz").stat().st_mtime_ns == when
    (out / "sub-1_t1_uncertainty.nii.gz").unlink()
    code, said = run("predict", *inputs[:1], "--model", model, "--out", out, "--uncertainty")
    assert code == 0
    assert "done before" not in said
    assert (out / "sub-1_t1_uncertainty.nii.gz").exists()


def test_predict_has_no_uncertainty_without_supervoxels(cohort: Path, tmp_path: Path, run: Run) -> None:
    info = ModelInfo(
        net="voxresnet", net_options={"reduction": 8}, head="base", channels=("T1",), label_names={0: "BG", 1: "GM"},
        convention="test", preprocess=PreprocessConfig(), supervoxels=None,
    )  # fmt: skip
    package = save_package(create_net("voxresnet", 1, 2, reduction=8), info, tmp_path / "base")
    command = ["predict", cohort / "sub-1", "--image", "*_t1.nii.gz", "--model", package, "--uncertainty"]
    code, said = run(*command, "--out", tmp_path / "out")
    assert code == 2
    assert "has no supervoxels" in said
    assert not (tmp_path / "out").exists()


def test_predict_refuses_a_changed_model(cohort: Path, model: Path, tmp_path: Path, run: Run) -> None:
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    with (changed / "model.safetensors").open("ab") as file:
        file.write(b"x")
    command = ["predict", cohort / "sub-1", "--image", "*_t1.nii.gz"]
    code, said = run(*command, "--model", changed, "--out", tmp_path / "out")
    assert code == 5
    assert "does not match its checksum" in said
    assert not (tmp_path / "out").exists()


def test_evaluate_scores_any_label_maps(cohort: Path, tmp_path: Path, run: Run) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for number in range(5):
        truth = nib.load(cohort / f"sub-{number}/sub-{number}_labels.nii.gz")
        array = np.asarray(truth.dataobj).copy()
        array[array == 3] = 2 if number == 0 else 3
        nib.save(nib.Nifti1Image(array, truth.affine), predictions / f"sub-{number}.nii.gz")
    code, said = run("evaluate", predictions, cohort, *PATTERNS, "--out", tmp_path / "scores")
    assert code == 4
    assert "sub-5: failed" in said
    scores = json.loads((tmp_path / "scores/scores.json").read_text(encoding="utf-8"))["classes"]
    assert scores["CSF"]["dice"] == 1
    assert scores["WM"]["dice"] == pytest.approx(0.8)
    assert scores["WM"]["n_missed"] == 1
    assert len((tmp_path / "scores/scores.csv").read_text(encoding="utf-8").splitlines()) == 1 + 5 * 3


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 1)])
def test_an_interruption_that_surfaces_as_another_error_is_still_one(interrupted: bool, code: int) -> None:
    program = (
        "import os, signal, time\n"
        "from voxpool_pipelines import cli\n"
        "def app(arguments):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.SIGINT) if {interrupted} else None\n"
        "        time.sleep(1)\n"
        "    except BaseException:\n"
        "        pass  # as a callback of a C library does\n"
        "    raise RuntimeError('no compiled object yet')\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == code
    assert ("voxpool: interrupted; the same command goes on" in done.stderr) == interrupted
    assert ("Traceback" in done.stderr) == (not interrupted)


@pytest.mark.parametrize("lost", [True, False], ids=["lost in C", "caught"])
def test_an_interruption_is_no_failure_of_a_scan(
    lost: bool, cohort: Path, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def interrupted(path: Path, **_: object) -> None:
        read.append(path)
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            if lost or isinstance(error, Exception):
                raise InputError("the file is damaged (E101)") from error
            raise

    monkeypatch.setattr(segment_scan, "read_volume", interrupted)
    out, report = tmp_path / "out", tmp_path / "run.json"
    options = ["--image", "*_t1.nii.gz", "--engine", "serial", "--report", report]
    code, said = run("predict", cohort, "--model", model, "--out", out, *options)
    assert code == 143
    assert said.splitlines()[-1] == "voxpool: interrupted; the same command goes on where it stopped"
    assert len(read) == 1  # the rest is not begun
    assert [path.name for path in out.iterdir()] == [".lock"]  # and nothing is called failed
    told = json.loads(report.read_text(encoding="utf-8"))
    assert (told["status"], told["cases"]) == ("interrupted", [])


def test_view_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in voxpool("view", tmp_path / "gone.nii.gz", code=3).stderr
    # a Python that finds no napari
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'napari' else find(name, *rest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert 'pip install "voxpool[napari]"' in voxpool("view", code=6).stderr
