"""How well a model of whole heads segments real ones: as they are, and as worse scanners would show them."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from voxpool.data import Case, Dataset
from voxpool.errors import InputError
from voxpool.inference import Segmenter
from voxpool.io import Volume, read_labels, read_volume, write_json
from voxpool.metrics import dice
from voxpool_pipelines.bench.degrade import DEGRADATIONS, orientations
from voxpool_pipelines.bench.machine import describe_machine
from voxpool_pipelines.bench.output import require_folder, say
from voxpool_pipelines.console import task
from voxpool_pipelines.finetune import tissue_labels


def run_bench_heads(
    dataset: Dataset,
    *,
    model: str,
    convention: str,
    cases: int | None,
    degraded: bool,
    turned: int,
    device: str,
    json: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Segment cases with a model, print the Dice of every class, and write JSON if asked for.

    Args:
        dataset: Cases with labels of background, CSF, GM and WM.
        model: Model package, or "bundled".
        convention: How its classes merge.
        cases: How many cases, evenly spread; None for all.
        degraded: Whether to segment what worse scanners would show too.
        turned: In how many of the 48 orientations the first case is stored too; the labels must be the same.
        device: "auto", "cpu", "cuda", ...
        json: File for everything measured.
        console: Gets the table.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: If a case has no labels.
        UsageError: If the labels are not tissues.
    """
    require_folder(json)
    tissues = tissue_labels(dataset.label_names)
    segmenter = Segmenter.load(model, device=device)
    some = dataset.cases if cases is None else dataset.cases[:: max(1, len(dataset.cases) // cases)][:cases]
    names = DEGRADATIONS if degraded else list(DEGRADATIONS)[:1]
    rows: list[dict[str, Any]] = []
    with task(console, "segmenting") as update:
        for number, case in enumerate(some):
            volume, labels = _read(case)
            labels = tissues[labels]
            for kind in names:
                image, target = DEGRADATIONS[kind](volume, labels)
                rows.append({"case": case.id, "kind": kind} | _scored(segmenter, image, target, convention))
            update((number + 1) / len(some), case.id)
    same = _orientations(segmenter, _read(some[0])[0], convention, turned, console)
    result = {
        "machine": describe_machine(segmenter.device),
        "model": model,
        "convention": convention,
        "rows": rows,
        "orientations": {"tried": turned, "same": same},
    }
    console.print(_table(rows))
    if turned:
        say(console, f"{same} of {turned} orientations give the same labels")
    if json:
        write_json(json, result)
        say(console, f"measured values: {json}")
    return result


def _read(case: Case) -> tuple[Volume, np.ndarray]:
    if case.labels is None:
        raise InputError(f"{case.id} has no labels; name their pattern with --labels")
    return read_volume(case.images[0]), read_labels(case.labels).array


def _scored(segmenter: Segmenter, image: Volume, target: np.ndarray, convention: str) -> dict[str, Any]:
    found = segmenter.segment(image, convention=convention)
    scores = {name: dice(found.labels == label, target == label) for label, name in found.label_names.items() if label}
    return {
        "dice": scores,
        "mean": float(np.mean(list(scores.values()))),
        "quality": found.quality,
        "seconds": found.seconds,
        "stages": found.stages,
        "warnings": list(found.warnings),
    }


def _orientations(segmenter: Segmenter, volume: Volume, convention: str, turned: int, console: Console) -> int:
    if not turned:
        return 0
    expected = segmenter.segment(volume, convention=convention).labels
    same = 0
    with task(console, "turning") as update:
        for number, (stored, back) in enumerate(orientations(volume)):
            if number == turned:
                break
            same += np.array_equal(back(segmenter.segment(stored, convention=convention).labels), expected)
            update((number + 1) / turned, f"{same} the same")
    return same


def _table(rows: list[dict[str, Any]]) -> Table:
    names = list(rows[0]["dice"])
    table = Table(title=f"Dice, mean of {len({row['case'] for row in rows})} cases", title_justify="left")
    table.add_column("scan", no_wrap=True)
    for name in (*names, "mean", "lowest", "quality", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        per_class = [np.mean([row["dice"][name] for row in of_kind]) for name in names]
        mean, quality, seconds = (np.mean([row[key] for row in of_kind]) for key in ("mean", "quality", "seconds"))
        cells = [*per_class, mean, min(row["mean"] for row in of_kind), quality]
        table.add_row(kind, *(f"{cell:.3f}" for cell in cells), f"{seconds:.1f}")
    return table
