"""`voxpool predict` on many copies of a scan: one process against several, and the memory of the one that drives."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from voxpool.errors import InputError
from voxpool.io import stem, write_json, write_text
from voxpool_pipelines.bench.cohort_plot import draw_cohort
from voxpool_pipelines.bench.machine import describe_machine
from voxpool_pipelines.console import task
from voxpool_pipelines.scale import DASK, SERIAL, check_engine

LOOK_SECONDS = 0.5
MEGABYTE = 1e6


def run_bench_cohort(
    scan: Path,
    *,
    model: Path,
    copies: int,
    workers: int,
    rounds: int,
    console: Console,
    json: Path | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Segment copies of a scan with both engines, in turn, each by a process of its own as a user would.

    Args:
        scan: A volume.
        model: Model package, or "bundled".
        copies: How many copies.
        workers: Processes of "dask".
        rounds: How often both engines are timed; medians count.
        console: Where progress and the result are shown.
        json: File for everything measured.
        plot: SVG file: scans done over time, and the driver's memory over scans done.

    Returns:
        "runs", each with "engine", "seconds" from start to end and "samples" of (seconds, scans done, driver's
        megabytes); "speedup", the ratio of the medians; "same", whether both wrote the same bytes.

    Raises:
        InputError: If the scan is no volume, or a run fails.
        ResourceError: If Dask is missing.
    """
    check_engine(DASK)
    if stem(scan.name) is None or not scan.is_file():
        raise InputError(f"{scan}: no volume; name a file such as scan.nii.gz (E101)")
    runs, same = [], True
    with tempfile.TemporaryDirectory(prefix="voxpool-") as work, task(console, f"{copies} copies") as update:
        cohort = Path(work) / "scans"
        cohort.mkdir()
        for number in range(copies):
            shutil.copyfile(scan, cohort / f"{number:05d}{scan.name[len(stem(scan.name) or '') :]}")
        for number in range(2 * rounds):
            engine = (SERIAL, DASK)[number % 2]
            out = Path(work) / engine
            shutil.rmtree(out, ignore_errors=True)
            command = ["predict", cohort, "--model", model, "--out", out, "--engine", engine, "--device", "cpu"]
            runs.append({"engine": engine, **_watch([str(part) for part in command], out, workers)})
            update((number + 1) / (2 * rounds), engine)
        for path in (Path(work) / SERIAL).glob("*_labels.nii.gz"):
            same &= path.read_bytes() == (Path(work) / DASK / path.name).read_bytes()
    found = {engine: statistics.median(run["seconds"] for run in runs if run["engine"] == engine) for engine in _BOTH}
    measured = {
        "machine": describe_machine(torch.device("cpu")),
        "copies": copies,
        "workers": workers,
        "seconds": found,
        "speedup": found[SERIAL] / found[DASK],
        "same": same,
        "runs": runs,
    }
    console.print(
        f"{copies} copies: one process {found[SERIAL]:.1f} s, {workers} processes {found[DASK]:.1f} s,"
        f" {measured['speedup']:.2f} times the scans per second; label maps are"
        f" {'the same bytes' if same else 'NOT the same'}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_told_of_memory(runs), highlight=False, soft_wrap=True)
    if json is not None:
        write_json(json, measured)
    if plot is not None:
        write_text(plot, draw_cohort(measured))
    return measured


_BOTH = (SERIAL, DASK)


def _watch(command: list[str], out: Path, workers: int) -> dict[str, Any]:
    """Run the command; look now and then at what is done and at the memory of its first process."""
    more = ["--workers", str(workers)] if DASK in command else []
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "voxpool_pipelines", *command, *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    driver = psutil.Process(process.pid)
    samples = []
    while process.poll() is None:
        done = sum(1 for _ in out.glob("*.json")) if out.exists() else 0
        try:
            samples.append((time.perf_counter() - start, done, driver.memory_info().rss / MEGABYTE))
        except psutil.Error:  # it has just ended
            break
        time.sleep(LOOK_SECONDS)  # often enough for the picture, too seldom to take a processor away
    _, said = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise InputError(f"voxpool predict ended with {process.returncode}: {said.decode(errors='replace').strip()}")
    return {"seconds": seconds, "samples": samples}


def _told_of_memory(runs: list[dict[str, Any]]) -> str:
    memory = [megabytes for run in runs if run["engine"] == DASK for _, done, megabytes in run["samples"] if done]
    if not memory:
        return "memory of the driver: the scans were done too soon to look at it"
    quarter = max(1, len(memory) // 4)
    early, late = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    return f"memory of the driver: {early:.0f} MB in the first quarter of the scans, {late:.0f} MB in the last"
