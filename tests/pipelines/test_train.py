"""One network for use: trained alone and by two processes, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import psutil
import torch
from torch import multiprocessing

from tests.pipelines import tasks
from tests.pipelines.conftest import Run
from voxpool.engine import step_loss
from voxpool.model_package import load_package

OPTIONS = (
    "--image", "*_t1.nii.gz", "--labels", "*_labels.nii.gz", "--crop", "16", "--n-segments", "150",
    "--amp", "off", "--checkpoint-seconds", "0.2", "--skip-check",
)  # fmt: skip
ALONE = (sys.executable, "-m")
# two processes of this machine; where one dies, the group is started anew
TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
AGAIN = (*TOGETHER[:-1], "--max-restarts", "1", "-m")


def command(launch: tuple[str, ...], cohort: Path, out: Path, *more: object) -> list[str]:
    return [*launch, "voxpool_pipelines", "train", str(cohort), "--out", str(out), *OPTIONS, *map(str, more)]


def run_apart(*arguments: object, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*arguments), capture_output=True, encoding="utf-8", check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_head_on_its_base(cohort: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    options = ("--iterations", 8, "--head", "v3")
    said = run_apart(ALONE, cohort, out, *options)
    assert said.splitlines()[-1] == f"model: {out / 'model'}"
    _, info = load_package(out / "model")
    assert (info.head, info.training["iterations"], info.training["fold"]) == ("v3", 2, None)
    assert info.training["cases"] == [f"sub-{number}" for number in range(6)]
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    assert not list(out.rglob("checkpoint.pt"))
    assert "done before" in run_apart(ALONE, cohort, out, *options)
    scan = cohort / "sub-0" / "sub-0_t1.nii.gz"
    assert run("predict", scan, "--model", out / "model", "--out", tmp_path / "labels")[0] == 0
    assert nib.load(tmp_path / "labels" / "sub-0_t1_labels.nii.gz").shape == nib.load(scan).shape


def test_a_killed_rank_changes_nothing(cohort: Path, tmp_path: Path) -> None:
    options = ("--iterations", 30, "--deterministic")
    run_apart(TOGETHER, cohort, tmp_path / "whole", *options)
    out = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(AGAIN, cohort, out, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    checkpoint = out / "variants/voxresnet-r8-base/all/training/checkpoint.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)  # the kill must fall between the first checkpoint and the end
    ranks = [one for one in psutil.Process(process.pid).children() if "train" in one.cmdline()]
    assert len(ranks) == 2
    done = torch.load(checkpoint, weights_only=True)["iteration"]
    assert done < 30
    ranks[-1].send_signal(signal.SIGKILL)
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, said
    assert "exitcode: -9" in said
    for name in ("model/model.safetensors", "variants/voxresnet-r8-base/all/model/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [
        [line.split(",")[0] for line in (place / "variants/voxresnet-r8-base/all/log.csv").read_text().splitlines()]
        for place in (out, tmp_path / "whole")
    ]
    assert rows[0] == rows[1] == ["iteration", "10", "20", "30"]


def test_two_processes_take_the_mean_of_their_gradients(tmp_path: Path) -> None:
    multiprocessing.spawn(tasks.train_as_rank, (str(tmp_path / "meet"), str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    net, config = tasks.small_net(), tasks.SMALL
    optimizer = torch.optim.SGD(net.parameters(), config.learning_rate, momentum=0.9)
    for step in range(config.iterations):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.iterations) ** config.poly_power
        for rank in range(2):
            loss, _ = step_loss(net, *tasks.draw(2 * step + rank))
            (loss / 2).backward()
        optimizer.step()
    start = dict(tasks.small_net().named_parameters())
    for name, weights in net.named_parameters():  # running means of a batch norm are those of the first process
        torch.testing.assert_close(found[name], weights.detach(), rtol=1e-4, atol=1e-6)
    assert max((found[name] - start[name]).abs().max() for name in start) > 1e-3


def test_minutes_are_for_one_process(cohort: Path, tmp_path: Path) -> None:
    assert "give --iterations" in run_apart(TOGETHER, cohort, tmp_path / "run", "--minutes", 1, code=1)
    assert not (tmp_path / "run").exists()
