"""Segment a cohort: one label map and one JSON file per scan, on one process or on many."""

import os
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console

from voxpool.errors import InputError, UsageError, VoxpoolError
from voxpool.estimate import Speed, estimate
from voxpool.inference import Segmenter
from voxpool.io import Geometry, read_geometry, write_json
from voxpool.model_package import weights_sha256
from voxpool_pipelines.console import clock, task
from voxpool_pipelines.run_folder import locked, read_json, versions
from voxpool_pipelines.scale import (
    AUTO,
    DASK,
    PROGRAMS,
    SERIAL,
    SERIAL_TASKS,
    Done,
    check_engine,
    run_tasks,
    suits_many,
)
from voxpool_pipelines.scans import Scan
from voxpool_pipelines.segment_scan import (
    PredictOptions,
    identity,
    load_segmenter,
    new_record,
    note_failure,
    row_of,
    segment_apart,
    segment_scan,
)

_TYPICAL = Geometry((256, 256, 192), np.eye(4))
_SHARE_OF_MEMORY = 0.9


def predict(
    scans: Sequence[Scan],
    options: PredictOptions,
    *,
    out: Path,
    console: Console,
    engine: str = AUTO,
    workers: int | None = None,
    report: Path | None = None,
) -> int:
    """Segment scans; one bad one never stops the rest, and what is done already is not done again.

    Args:
        scans: What to segment, see `voxpool_pipelines.scans.list_scans`.
        options: How.
        out: Gets the files of every scan, see `segment_scan`.
        console: Where progress is shown.
        engine: "serial", "dask", the address of a Dask scheduler, or "auto": Dask for more than `SERIAL_TASKS` scans
            on a CPU, where it is installed.
        workers: Number of processes for "dask"; None for as many as processors and memory allow.
        report: JSON file that tells of the whole run.

    Returns:
        Number of scans that failed.

    Raises:
        UsageError: If another run holds the folder, it holds results of another model or other options, or the model
            has no supervoxels to be uncertain of.
        ModelError: If the package is refused.
        ResourceError: If Dask is missing, or no scheduler answers.

    Determinism: the same label maps, byte for byte, for every engine and number of workers; see `PredictOptions` for
    threads, of which a cohort's scan has one, and up to `SERIAL_TASKS` scans all.
    """
    start = time.perf_counter()
    if engine != AUTO:
        check_engine(engine)
    segmenter = load_segmenter(options.model, options.device)
    if options.uncertainty and segmenter.info.supervoxels is None:
        raise UsageError(f"the model {options.model} has no supervoxels, which --uncertainty is of; leave it out")
    model_sha256 = weights_sha256(options.model)
    if not options.overwrite:
        _refuse_other_results(scans, out, identity(options, model_sha256))
    threads = options.threads or _threads(len(scans), segmenter)
    options = replace(options, threads=threads)
    engine, workers = _choose(engine, workers, threads, scans, segmenter)
    of_all = {"options": options, "model_sha256": model_sha256, "out": out}
    with locked(out):
        rows: list[dict[str, Any]] = []
        before = {scan.name: _written(out, scan) for scan in scans}
        try:
            if engine == SERIAL:
                found = _one_by_one(scans, console, of_all)
            else:
                load_segmenter.cache_clear()  # the driver needs it no more
                del segmenter
                found = _side_by_side(scans, console, of_all, engine=engine, workers=workers or 1)
            with closing(found):  # however this ends, so do the other processes before the report is written
                for row in found:
                    _tell(row, console)
                    rows.append(row)
        finally:
            if report is not None:
                rows += _not_heard_of(scans, rows, out, before)
                how = {"engine": engine, "workers": workers, "seconds": round(time.perf_counter() - start, 3)}
                write_json(report, _report(rows, len(scans), {**identity(options, model_sha256), **how}))
    count = Counter(row["status"] for row in rows)
    warned = f", {count['warn']} with a warning" if count["warn"] else ""
    console.print(f"{count['ok'] + count['warn']} of {len(scans)} segmented{warned}", highlight=False, soft_wrap=True)
    return count["failed"]


def _one_by_one(
    scans: Sequence[Scan], console: Console, of_all: Mapping[str, Any]
) -> Generator[dict[str, Any], None, None]:
    for scan in scans:
        with task(console, scan.name, say_done=False) as update, _computing_with(of_all["options"].threads):
            row = segment_scan(scan, **of_all, progress=lambda stage, fraction, update=update: update(fraction, stage))
        yield row


def _side_by_side(
    scans: Sequence[Scan], console: Console, of_all: Mapping[str, Any], *, engine: str, workers: int
) -> Generator[dict[str, Any], None, None]:
    start = time.perf_counter()
    work = partial(segment_apart, **of_all)
    with task(console, f"{len(scans)} scans on {engine}") as update:
        tasks = {scan.name: scan for scan in scans}
        threads = of_all["options"].threads
        found = run_tasks(work, tasks, engine=engine, workers=workers, threads=threads, modules=PROGRAMS)
        with closing(found):
            for number, done in enumerate(found, start=1):
                yield _dead(done, **of_all) if done.result is None else done.result
                left = (time.perf_counter() - start) / number * (len(scans) - number)
                update(number / len(scans), f"{number}/{len(scans)} left {clock(left)}")


def _tell(row: Mapping[str, Any], console: Console) -> None:
    """A line for a scan, and one for each of its warnings."""
    if row["status"] == "failed":
        told = [f"failed: {row['error']}"]
    else:
        done = f"done in {clock(row['seconds'])}" if row["again"] else "done before"
        told = [done, *(f"warning: {warning}" for warning in row["warnings"])]
    for line in told:
        console.print(f"{row['name']}: {line}", highlight=False, markup=False, soft_wrap=True)


def _dead(done: Done[Any], *, options: PredictOptions, model_sha256: str, out: Path) -> dict[str, Any]:
    """What is told of a scan whose processes died."""
    record = new_record(done.name, options, model_sha256)
    outcome = note_failure(out / f"{done.name}.json", record, str(done.death))
    return row_of(done.name, outcome, again=True, seconds=None)


def _written(out: Path, scan: Scan) -> int | None:
    """When the JSON file of a scan was written, in ns; None where there is none."""
    try:
        return (out / f"{scan.name}.json").stat().st_mtime_ns
    except OSError:
        return None


def _not_heard_of(
    scans: Sequence[Scan], rows: Sequence[Mapping[str, Any]], out: Path, before: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """The rows of scans that this run has ended, but of which an interruption kept the driver from hearing."""
    told = {row["name"] for row in rows}
    new = [scan for scan in scans if scan.name not in told and _written(out, scan) not in (None, before[scan.name])]
    records = {scan.name: read_json(out / f"{scan.name}.json") for scan in new}
    return [
        row_of(name, record, again=True, seconds=sum(record.get("seconds", {}).values()))
        for name, record in records.items()
    ]


def _report(rows: Sequence[Mapping[str, Any]], wanted: int, run: Mapping[str, Any]) -> dict[str, Any]:
    count = Counter(row["status"] for row in rows)
    return {
        "schema": 1,
        "status": "done" if len(rows) == wanted else "interrupted",
        **run,
        "versions": versions(),
        "counts": {"wanted": wanted, **{status: count[status] for status in ("ok", "warn", "failed")}},
        "cases": list(rows),
    }


def _refuse_other_results(scans: Sequence[Scan], out: Path, wanted: Mapping[str, Any]) -> None:
    """A folder holds results of one model with one set of options, or its volumes could not be compared."""
    for scan in scans:
        path = out / f"{scan.name}.json"
        if not path.is_file():
            continue
        try:
            old = read_json(path)
        except InputError:  # damaged: the scan is done again
            continue
        if not isinstance(old, dict) or old.get("status") == "failed":
            continue
        differ = [key for key in wanted if key in old and old[key] != wanted[key]]
        if differ:
            raise UsageError(
                f"{out} holds results of another {differ[0].replace('_', ' ')} ({old[differ[0]]}, now"
                f" {wanted[differ[0]]}); choose another --out, or give --overwrite"
            )


def _threads(scans: int, segmenter: Segmenter) -> int:
    """Threads per scan: all where seconds count, one for a cohort, since scans side by side wait for nothing.

    It depends on no engine and no number of workers, so that the label maps do not either.
    """
    return torch.get_num_threads() if scans <= SERIAL_TASKS or segmenter.device.type != "cpu" else 1


@contextmanager
def _computing_with(threads: int) -> Generator[None, None, None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choose(
    engine: str, workers: int | None, threads: int, scans: Sequence[Scan], segmenter: Segmenter
) -> tuple[str, int | None]:
    """The engine and the number of its processes, None for a cluster: as many as processors and free memory allow."""
    if engine == AUTO:
        engine = DASK if suits_many(len(scans)) and segmenter.device.type == "cpu" else SERIAL
    if engine != DASK:
        return engine, 1 if engine == SERIAL else None
    each = estimate(segmenter, _first_geometry(scans), Speed(0.0, 0.0)).gigabytes
    fit = int(_SHARE_OF_MEMORY * psutil.virtual_memory().available / 1e9 / each)
    if workers is None:
        workers = max(1, min((os.cpu_count() or 1) // threads, fit, len(scans)))
    return DASK, workers


def _first_geometry(scans: Sequence[Scan]) -> Geometry:
    """The grid of the first scan that can be read, which speaks for all."""
    for scan in scans:
        if not scan.is_dicom:
            try:
                return read_geometry(scan.paths[0])
            except VoxpoolError:
                continue
    return _TYPICAL
