"""Cohorts: what dies takes only its own scan with it, nothing is lost, and every engine writes the same bytes."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dask
import nibabel
import numpy as np
import psutil
import pytest
import torch
from distributed import LocalCluster

from tests.pipelines import tasks
from tests.pipelines.conftest import Run
from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.model_package import ModelInfo, save_package
from voxpool_pipelines.scale import run_tasks

COUNT = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory.mktemp("models") / "model", seed=0)


def _model(folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    info = ModelInfo(
        net="voxresnet", net_options={"reduction": 4}, head="v3", channels=("T1",),
        label_names={0: "BG", 1: "CSF", 2: "GM", 3: "WM"}, convention="test",
        preprocess=PreprocessConfig(), supervoxels=SupervoxelConfig("slic", 150),
    )  # fmt: skip
    net = info.create()
    torch.nn.init.normal_(net.supervoxel_classifier.weight)
    return save_package(net, info, folder)


@pytest.fixture(scope="module")
def scans(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number in range(COUNT):
        shutil.copyfile(cohort / f"sub-{number % 6}/sub-{number % 6}_t1.nii.gz", folder / f"c{number:02d}.nii.gz")
    return folder


def command(scans: Path, model: Path, out: Path, *more: object) -> list[str]:
    program = [sys.executable, "-m", "voxpool_pipelines", "predict", scans, "--model", model, "--out", out]
    return [str(part) for part in (*program, *more)]


def run_apart(*arguments: object, code: int = 0, **options: object) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, encoding="utf-8", check=False, **options)
    shown = done.stdout + done.stderr
    assert done.returncode == code, shown
    assert "Traceback" not in shown
    return shown


@pytest.fixture
def run_here(run: Run) -> Callable[..., str]:
    """The same without a process of its own, where none is to die."""

    def call(scans: Path, model: Path, out: Path, *more: object, code: int = 0) -> str:
        found, shown = run("predict", scans, "--model", model, "--out", out, *more)
        assert found == code, shown
        return shown

    return call


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*_labels.nii.gz")}


def records(out: Path) -> dict[str, dict]:
    """What the JSON files tell, without what is of the moment."""
    found = {path.stem: json.loads(path.read_text()) for path in out.glob("c*.json")}
    return {
        name: {key: value for key, value in record.items() if key not in ("seconds", "peak_memory_gb")}
        for name, record in found.items()
    }


@pytest.fixture(scope="module")
def serial(scans: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serial") / "out"
    run_apart(scans, model, out, "--engine", "serial", "--report", out.parent / "run.json")
    return out


def test_the_report_tells_of_every_scan(serial: Path) -> None:
    report = json.loads((serial.parent / "run.json").read_text())
    assert report["status"] == "done"
    assert report["counts"]["wanted"] == COUNT
    assert report["counts"]["ok"] + report["counts"]["warn"] == COUNT
    assert [row["name"] for row in report["cases"]] == [f"c{number:02d}" for number in range(COUNT)]
    for record in records(serial).values():
        assert record["versions"]["torch"] == torch.__version__
        assert record["outputs"]
    assert 0.2 < json.loads((serial / "c00.json").read_text())["peak_memory_gb"]["cpu"] < 20
    # nothing of where the scans lie
    assert str(serial.parent.parent) not in (serial.parent / "run.json").read_text()


def _wait(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)  # between two looks


def _ended(out: Path) -> int:
    """How many scans are done."""
    return len(list(out.glob("c*.json")))


def _stop(driver: subprocess.Popen, out: Path) -> None:
    """Stop the driver while a scan is worked at, and wait for the end of this one, of which the driver hears nothing.

    No scan is begun from here on.
    """
    wanted = 1
    while True:
        _wait(lambda count=wanted: _ended(out) >= count)
        driver.send_signal(signal.SIGSTOP)
        wanted = _ended(out) + 1
        with suppress(AssertionError):
            _wait(lambda count=wanted: _ended(out) >= count, seconds=10)
            return
        driver.send_signal(signal.SIGCONT)  # all workers were between two scans


def _workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """What the process that imports once was forked into."""
    servers = [one for one in psutil.Process(driver.pid).children() if "forkserver" in " ".join(one.cmdline())]
    return [worker for server in servers for worker in server.children()]


def test_a_killed_worker_loses_only_the_scan_in_flight(scans: Path, model: Path, serial: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "run.json"
    more = ("--engine", "dask", "--workers", "2", "--report", report)
    driver = subprocess.Popen(command(scans, model, out, *more), stdout=subprocess.DEVNULL)
    _wait(lambda: _ended(out) >= 2)
    workers = _workers(driver)
    assert len(workers) == 2
    workers[0].kill()
    assert driver.wait(180) == 0
    # with two workers and one killed: the bytes of one process
    assert results(out) == results(serial)
    assert records(out) == records(serial)
    told = json.loads(report.read_text())
    assert told["engine"] == "dask"
    assert sorted(row["name"] for row in told["cases"]) == sorted(records(serial))
    assert not list(out.glob(".part*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_ended_driver_leaves_no_process_and_goes_on(
    number: signal.Signals,
    code: int,
    scans: Path,
    model: Path,
    serial: Path,
    tmp_path: Path,
    run_here: Callable[..., str],
) -> None:
    out, report = tmp_path / "out", tmp_path / "run.json"
    more = ("--engine", "dask", "--workers", "2", "--report", report)
    driver = subprocess.Popen(
        command(scans, model, out, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    _stop(driver, out)
    workers = _workers(driver)
    if number == signal.SIGINT:  # Ctrl-C reaches all processes of a terminal
        os.killpg(driver.pid, number)
    else:
        driver.send_signal(number)
    driver.send_signal(signal.SIGCONT)
    shown = driver.communicate(timeout=60)[0].decode()
    assert driver.returncode == code, shown
    assert "Traceback" not in shown
    assert not psutil.wait_procs(workers, timeout=30)[1]
    if number != signal.SIGKILL:
        told = json.loads(report.read_text())
        assert told["status"] == "interrupted"
        # all that lies there, whether or not the driver had heard of it
        assert {row["name"]: row["status"] for row in told["cases"]} == {
            name: record["status"] for name, record in records(out).items()
        }
    done = {
        path: path.stat().st_mtime_ns
        for path in out.glob("*_labels.nii.gz")
        if (out / f"{path.name[:3]}.json").exists()
    }
    assert 2 <= len(done) < COUNT
    run_here(scans, model, out, "--engine", "serial")
    assert results(out) == results(serial)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert not list(out.glob(".part*"))


def test_poison_is_isolated(tmp_path: Path) -> None:
    names = ["a", "b", "slow poison", "c", "d", "e", "f"]
    work = {name: (str(tmp_path), name) for name in names}
    found = {done.name: done for done in run_tasks(tasks.note, work, engine="dask", workers=2)}
    death = found.pop("slow poison").death
    assert "3 processes were killed" in death
    assert {name: done.result for name, done in found.items()} == {name: f"{name}1" for name in "abcdef"}
    ran = Counter(name for _, name in _ran(tmp_path))
    assert ran == Counter(names) + Counter({"slow poison": 2})


def test_a_task_behind_poison_is_not_given_up(tmp_path: Path) -> None:
    work = {name: (str(tmp_path), name) for name in ("poison", "d")}
    settings = {
        "distributed.scheduler.allowed-failures": 0,  # one death, and Dask gives up all tasks that were dealt there
        "distributed.worker.daemon": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        done = {done.name: done for done in run_tasks(tasks.note, work, engine=cluster.scheduler_address)}
    assert done["d"].result == "d1"
    assert "3 processes were killed" in done["poison"].death
    assert Counter(name for _, name in _ran(tmp_path)) == {"poison": 3, "d": 1}


def _ran(folder: Path) -> list[tuple[int, str]]:
    """Which process did what, by `tasks.note`."""
    rows = [row.split(maxsplit=1) for row in (folder / "ran.txt").read_text().splitlines()]
    return [(int(process), name) for process, name in rows]


def test_a_result_outlives_the_process_that_found_it(tmp_path: Path) -> None:
    found = {}

    def poisoned() -> bool:
        return any(name == "poison" and not psutil.pid_exists(process) for process, name in _ran(tmp_path))

    work = {name: (str(tmp_path), name) for name in ("a", "b", "poison", "c")}
    for done in run_tasks(tasks.note, work, engine="dask", workers=1):
        found[done.name] = done.result
        if done.name == "a":
            _wait(poisoned)  # by the process that did b, which nobody has asked for yet
    assert found == {"a": "a1", "b": "b1", "poison": None, "c": "c1"}


def test_a_worker_over_its_memory_is_told_of(recwarn: pytest.WarningsRecorder) -> None:
    work = {"small": 10, "large": 1500, "other": 10}
    with socket.socket() as other:
        with suppress(OSError):  # another process has that port already, as here an earlier run of Dask would
            other.bind(("127.0.0.1", 8787))
            other.listen()
        found = {done.name: done for done in run_tasks(tasks.hoard, work, engine="dask", workers=1, memory_gb=1.0)}
    assert not [warning for warning in recwarn if "8787" in str(warning.message)]
    assert found["small"].result == found["other"].result == 10**7
    assert "memory was too small" in found["large"].death


def test_a_full_disk_ends_each_scan_with_nothing_half_written(
    scans: Path, model: Path, serial: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    largest = max(len(content) for content in results(serial).values())
    limit = largest // 2

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    shown = run_apart(scans, model, out, "--engine", "serial", "--image", "c0[01]*", code=4, preexec_fn=small_disk)
    assert "the disk is full" in shown
    assert not [path for path in out.iterdir() if path.name != ".lock" and not path.name.endswith(".json")]


def test_damaged_outputs_are_made_again(
    scans: Path, model: Path, serial: Path, tmp_path: Path, run_here: Callable[..., str]
) -> None:
    out = Path(shutil.copytree(serial, tmp_path / "out"))
    whole = results(out)
    (out / "c03_labels.nii.gz").write_bytes(whole["c03_labels.nii.gz"][:100])
    (out / "c04.json").write_text("{")
    (out / "c05_labels.nii.gz").unlink()
    shown = run_here(scans, model, out, "--engine", "serial")
    assert shown.count("done before") == COUNT - 3
    assert results(out) == whole


def test_two_drivers_and_another_model(
    scans: Path, model: Path, serial: Path, tmp_path: Path, run_here: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(command(scans, model, out, "--engine", "serial"), stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: _ended(out) >= 1)
        first.send_signal(signal.SIGSTOP)  # it still holds the folder when the second one looks
        assert f"process {first.pid} on " in run_here(scans, model, out, code=2)
    finally:
        first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) == 143

    other = _model(tmp_path / "other", seed=1)
    out = Path(shutil.copytree(serial, tmp_path / "old"))
    before = results(out)
    assert "results of another model sha256" in run_here(scans, other, out, "--engine", "serial", code=2)
    assert results(out) == before
    run_here(scans, other, out, "--engine", "serial", "--image", "c00*", "--overwrite")
    assert results(out)["c00_labels.nii.gz"] != before["c00_labels.nii.gz"]


def test_a_changed_scan_is_segmented_again_and_a_spoilt_one_leaves_no_old_result(
    scans: Path, model: Path, serial: Path, tmp_path: Path, run_here: Callable[..., str]
) -> None:
    inputs, out = Path(shutil.copytree(scans, tmp_path / "in")), Path(shutil.copytree(serial, tmp_path / "out"))
    image = nibabel.load(inputs / "c00.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), inputs / "c00.nii.gz")
    (inputs / "c01.nii.gz").write_bytes(b"no scan")
    shown = run_here(inputs, model, out, "--engine", "serial", code=4)
    assert shown.count("done before") == COUNT - 2
    assert "c01: failed" in shown
    assert not (out / "c01_labels.nii.gz").exists()
    assert json.loads((out / "c01.json").read_text())["status"] == "failed"
    assert results(out)["c00_labels.nii.gz"] != results(serial)["c00_labels.nii.gz"]


def test_engines_that_are_none(scans: Path, model: Path, tmp_path: Path, run_here: Callable[..., str]) -> None:
    assert "--engine is serial, dask" in run_here(scans, model, tmp_path / "out", "--engine", "ray", code=2)
    assert "no Dask scheduler answers" in run_here(
        scans, model, tmp_path / "out", "--engine", "tcp://127.0.0.1:9", code=6
    )
