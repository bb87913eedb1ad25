"""The benchmark of supervoxels: ours and its peers at the same number of segments, time and accuracy in one run."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from voxpool.data import Dataset
from voxpool.inference import select_device
from voxpool.io import write_json
from voxpool.supervoxels.quality import achievable_accuracy
from voxpool_pipelines.bench.generators import Generator, ours, ours_on_gpu, peers
from voxpool_pipelines.bench.machine import describe_machine, watch_other_work
from voxpool_pipelines.bench.output import require_folder, say
from voxpool_pipelines.bench.timing import Timing, interleave, measure_cpu
from voxpool_pipelines.bench.volumes import QUICK_SPACE, SPACE, BenchVolume, phantoms, volumes_of

WANTED = (1000, 8000)
QUICK_WANTED = (60,)
MATCHED = 0.03
"""Numbers of segments that differ by no more than this share are the same."""

_TRIES = 8
_SAMPLES = 3
_SLOW = 15.0  # seconds of one call


@dataclass(frozen=True)
class _Matched:
    """A generator with the number of segments to ask it for."""

    generator: Generator
    asked: int
    segments: int
    accuracy: float
    seconds: float


def run_bench_slic(
    *, dataset: Dataset | None, cases: int, device: str, json: Path | None, quick: bool, console: Console
) -> dict[str, Any]:
    """Time supervoxels of phantoms and of a user's images, print a table per volume, and write JSON if asked for.

    Each peer makes about 1000 and about 8000 segments; ours is then asked for as many as the peer made.

    Args:
        dataset: Labelled images, or None for the phantoms alone.
        cases: How many of them.
        device: "auto", "cpu", "cuda" or "cuda:0": on a GPU ours is timed there as well.
        json: File for everything measured.
        quick: Small phantoms: shows that all runs, not how fast.
        console: Gets the tables.

    Returns:
        What the JSON file holds.

    Raises:
        UsageError: If the device is unknown.
        ResourceError: If there is no such device, or the file cannot be written.
    """
    target = select_device(device)
    require_folder(json)
    machine = describe_machine(target)
    say(console, f"{machine['gpu'] or machine['processor']}, {machine['threads']} threads")
    volumes: Iterable[BenchVolume] = phantoms(QUICK_SPACE if quick else SPACE)
    found: list[dict[str, Any]] = []
    for group in (volumes, volumes_of(dataset, cases) if dataset else ()):
        for volume in group:
            for wanted in QUICK_WANTED if quick else WANTED:
                found.append(measure_volume(volume, wanted, on_gpu=target.type == "cuda", samples=_SAMPLES))
                console.print(_table(found[-1]))
    result = {"quick": quick, "machine": machine, "cases": found}
    if json:
        write_json(json, result)
        say(console, f"measured values: {json}")
    return result


def measure_volume(volume: BenchVolume, wanted: int, *, on_gpu: bool, samples: int) -> dict[str, Any]:
    """Match ours to every peer, then time all in turn.

    Args:
        volume: What to segment.
        wanted: About how many segments.
        on_gpu: Whether to time ours on the current CUDA device too.
        samples: Clean samples wanted of each.

    Returns:
        Plain values for JSON: one row per peer, with ours beside it.
    """
    mine = Generator("voxpool", "voxpool", ours)
    pairs = []
    for peer in peers():
        if peer.masks or volume.mask is None:
            theirs = _measured(peer, volume, wanted)
            pairs.append((theirs, _match(mine, volume, theirs.segments)))
    if not pairs:
        alone = _measured(mine, volume, wanted)
        pairs.append((alone, alone))
    calls = {
        (i, which): partial(each.generator.make, volume, each.asked)
        for i, pair in enumerate(pairs)
        for which, each in zip(("theirs", "ours"), pair, strict=True)
    }
    if on_gpu:
        calls |= {(i, "gpu"): partial(ours_on_gpu, volume, pair[1].asked) for i, pair in enumerate(pairs)}
    # what takes so long is not run again: its one time counts
    slow = {(i, "theirs"): pair[0].seconds for i, pair in enumerate(pairs) if pair[0].seconds > _SLOW}
    calls = {key: call for key, call in calls.items() if key not in slow}
    other_work = watch_other_work()
    times: dict[Any, Timing] = interleave(calls, samples=samples, budget=60.0 * len(calls), measure=measure_cpu)
    times |= {key: Timing(seconds, seconds, seconds, 1, 0, False) for key, seconds in slow.items()}
    rows = []
    for i, (theirs, own) in enumerate(pairs):
        row = {
            "peer": theirs.generator.name,
            "theirs": _row(theirs, times[i, "theirs"]),
            "ours": _row(own, times[i, "ours"]),
            "ratio": times[i, "theirs"].seconds / times[i, "ours"].seconds,
            "matched": abs(own.segments / theirs.segments - 1) <= MATCHED,
        }
        if on_gpu:
            row |= {"ours_on_gpu": _row(own, times[i, "gpu"])}
        rows.append(row)
    return {
        "title": f"{volume.title}, {' x '.join(map(str, volume.image.shape))}, about {wanted} segments",
        "voxels": volume.voxels,
        "spacing": list(volume.spacing),
        "masked": volume.mask is not None,
        "other_work": other_work(),
        "rows": rows,
    }


def _measured(generator: Generator, volume: BenchVolume, asked: int) -> _Matched:
    """Count the segments that a generator makes, and how well they follow the truth, within the mask."""
    start = time.perf_counter()
    segments = np.asarray(generator.make(volume, asked))
    seconds = time.perf_counter() - start
    inside = slice(None) if volume.mask is None else volume.mask
    ids = np.unique(segments[inside], return_inverse=True)[1].reshape(-1)
    accuracy = achievable_accuracy(ids, volume.labels[inside].reshape(-1))
    return _Matched(generator, asked, int(ids.max()) + 1, accuracy, seconds)


def _match(generator: Generator, volume: BenchVolume, segments: int) -> _Matched:
    """Ask a generator for more or fewer segments until it makes as many as another did."""
    asked, best = segments, None
    for _ in range(_TRIES):
        found = _measured(generator, volume, asked)
        if best is None or abs(found.segments - segments) < abs(best.segments - segments):
            best = found
        if abs(found.segments / segments - 1) <= MATCHED / 2:
            break
        asked = max(1, round(asked * segments / found.segments))
    assert best is not None  # there was a first try
    return best


def _row(matched: _Matched, timing: Timing) -> dict[str, Any]:
    return {
        "segments": matched.segments,
        "accuracy": matched.accuracy,
        "seconds": timing.seconds,
        "low": timing.low,
        "high": timing.high,
        "clean": timing.clean,
    }


def _table(case: dict[str, Any]) -> Table:
    table = Table(title=case["title"], title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("generator", no_wrap=True)
    for name in ("K", "ASA", "s", "from", "to", "x ours"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in case["rows"]:
        table.add_section()
        matched = "" if row["matched"] else " (K differs)"
        table.add_row(row["peer"], *_cells(row["theirs"]), f"{row['ratio']:.1f}")
        table.add_row(f"voxpool{matched}", *_cells(row["ours"]), "1")
        if "ours_on_gpu" in row:
            gpu = row["ours_on_gpu"]
            table.add_row("voxpool, GPU", *_cells(gpu), f"{gpu['seconds'] / row['ours']['seconds']:.3f}")
    return table


def _cells(row: dict[str, Any]) -> Sequence[str]:
    seconds = [f"{row[key]:.4f}" if row[key] < 0.1 else f"{row[key]:.2f}" for key in ("seconds", "low", "high")]
    return [str(row["segments"]), f"{row['accuracy']:.4f}", *seconds]
