"""Cross-validation: every network and head trained fold by fold, scored on the cases held out.

State lies on disk alone: a (variant, fold) is done when its `result.json` is there, and a training goes on from its
checkpoint. Killed at any time and started again, a run goes on where it was.
"""

import copy
import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from voxpool.data import Case, Dataset, Fold
from voxpool.data.cache import TrainingCase
from voxpool.errors import ResourceError, UsageError
from voxpool.inference import Segmenter, select_device
from voxpool.io import read_labels, read_volume, write_json, write_volume
from voxpool.metrics import dice_background, score_case
from voxpool.nets import count_parameters
from voxpool.supervoxels import oracle_dice
from voxpool_pipelines.config import BASE, CrossvalConfig, NetSpec, Variant, head_variants, net_specs
from voxpool_pipelines.console import task
from voxpool_pipelines.run_folder import case_records, describe, fold_folder, locked, start_run
from voxpool_pipelines.scale import PROGRAMS, SERIAL, check_engine, run_tasks
from voxpool_pipelines.variants import Run, Trained, cache_cases, check_nets, open_run, train_variant

Unit = tuple[NetSpec, int]
"""A base network and a fold: what one process does."""


def crossval(
    dataset: Dataset,
    folds: Sequence[Fold],
    config: CrossvalConfig,
    *,
    out: Path,
    device: str = "auto",
    console: Console | None = None,
    cancelled: Callable[[], bool] | None = None,
    engine: str = SERIAL,
    workers: int | None = None,
) -> Path:
    """Cross-validate the networks and heads of a configuration on a data set.

    Args:
        dataset: Cases with labels, checked.
        folds: The splits.
        config: What to train, and how.
        out: Run folder; an interrupted run in it is continued.
        device: "auto", "cpu", "cuda", ...
        console: Where progress is shown.
        cancelled: Asked before every training step, by "serial".
        engine: "serial", "dask" for several processes, which take a network and fold each, or the address of a Dask
            scheduler.
        workers: Processes of "dask", which share the threads; None for as many as there is work and processors.

    Returns:
        The run folder, with `result.json` of every variant and fold.

    Raises:
        UsageError: If the folder holds another run, or several processes are given minutes instead of iterations.
        ResourceError: If Dask is missing, or processes died over a network and fold.
        Cancelled: If `cancelled` said so; the state is saved.
    """
    check_engine(engine)
    if engine != SERIAL and config.iterations is None:
        raise UsageError("processes that share a machine cannot keep to minutes; give --iterations, or --engine serial")
    chosen = select_device(device)
    torch.use_deterministic_algorithms(config.deterministic)
    check_nets(config, dataset)
    with locked(out):
        start_run(out, describe(dataset, config, device=str(chosen), status="running"), case_records(dataset))
        console = console or Console()
        run = open_run(out, dataset, config, device=chosen, console=console)
        cached = cache_cases(run)
        units = [(spec, fold) for fold in config.only_folds or range(len(folds)) for spec in net_specs(config)]
        if engine == SERIAL:
            for spec, fold in units:
                _run_spec(run, spec, fold, folds[fold], cached, cancelled)
        else:
            work = partial(_run_apart, folds=tuple(folds), dataset=dataset, config=config, out=out, device=str(chosen))
            _side_by_side(work, units, console, engine=engine, workers=workers)
        write_json(out / "run.json", describe(dataset, config, device=str(chosen), status="done"))
    return out


def _side_by_side(
    work: Callable[..., list[str]], units: Sequence[Unit], console: Console, *, engine: str, workers: int | None
) -> None:
    """Every network and fold by a process of its own; what is done is passed over."""
    workers = workers or min(len(units), os.cpu_count() or 1)
    threads = max(1, torch.get_num_threads() // workers)
    tasks = {f"{spec.id}, fold {fold}": (spec, fold) for spec, fold in units}
    found = run_tasks(
        partial(work, threads=threads), tasks, engine=engine, workers=workers, threads=threads, modules=PROGRAMS
    )
    with closing(found), task(console, f"{len(units)} networks and folds on {engine}") as update:
        for number, done in enumerate(found, start=1):
            if done.result is None:
                raise ResourceError(f"{done.name}: {done.death}")
            for line in done.result:
                console.print(line, highlight=False, soft_wrap=True)
            update(number / len(units), done.name)


def _run_apart(
    unit: Unit, *, folds: Sequence[Fold], dataset: Dataset, config: CrossvalConfig, out: Path, device: str, threads: int
) -> list[str]:
    """`_run_spec` in a process of its own, on cases that the driver has prepared; what it has to say."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(config.deterministic)
    run = open_run(out, dataset, config, device=torch.device(device), console=Console(quiet=True))
    spec, fold = unit
    return _run_spec(run, spec, fold, folds[fold], cache_cases(run), None)


def _run_spec(
    run: Run,
    spec: NetSpec,
    fold: int,
    split: Fold,
    cached: dict[str, TrainingCase],
    cancelled: Callable[[], bool] | None,
) -> list[str]:
    """One base network on one fold, then all that is fine-tuned from it; a line on each."""
    base = Variant(spec, BASE)
    variants = [base, *head_variants(run.config, spec)]
    cases = [cached[case_id] for case_id in split.train]
    lines = []
    for variant in variants:
        place = fold_folder(run.folder, variant, fold)
        if (place / "result.json").exists():
            continue
        trained = train_variant(run, variant, fold, cases, cancelled)
        lines.append(_evaluate(run, variant, fold, split, trained))
        run.console.print(lines[-1], highlight=False, soft_wrap=True)
        shutil.rmtree(place / "training", ignore_errors=True)
    return lines


def _evaluate(run: Run, variant: Variant, fold: int, split: Fold, trained: Trained) -> str:
    """Segment and score the held-out cases, then write `result.json`: the (variant, fold) is done."""
    place, supervoxels = fold_folder(run.folder, variant, fold), trained.info.supervoxels
    segmenter = Segmenter(copy.deepcopy(trained.net), trained.info, device=run.device, amp=run.config.amp)
    held_out = [case for case in run.dataset.cases if case.id in set(split.test)]
    rows = []
    with task(run.console, f"fold {fold} {variant.id}: segmenting and scoring") as update:
        for number, case in enumerate(held_out):
            rows.append(_score(case, fold, segmenter, place / "predictions"))
            update((number + 1) / len(held_out), case.id)
    write_json(
        place / "result.json",
        {
            "variant": variant.as_dict(),
            "fold": fold,
            "parameters": count_parameters(trained.net),
            "iterations": trained.result.iterations,
            "train_seconds": trained.result.seconds,
            "compactness": supervoxels.compactness if supervoxels and supervoxels.method == "slic" else None,
            "n_segments": supervoxels.n_segments if supervoxels else None,
            "seed": run.config.seed,
            "cases": rows,
        },
    )
    foreground = np.nanmean([score["dice"] for row in rows for score in row["classes"].values()])
    return f"fold {fold} {variant.id}: foreground Dice {foreground:.3f}"


def _score(case: Case, fold: int, segmenter: Segmenter, predictions: Path) -> dict[str, Any]:
    volumes = [read_volume(path) for path in case.images]
    assert case.labels is not None  # the data set was checked
    target = read_labels(case.labels).array
    names = segmenter.info.label_names
    found = segmenter.segment(volumes)
    predictions.mkdir(parents=True, exist_ok=True)
    write_volume(predictions / f"{case.id}.nii.gz", found.labels, like=volumes[0])
    scores = score_case(found.labels, target, spacing=volumes[0].geometry.spacing, label_names=names)
    oracle = None
    if found.segments is not None:
        per_class = oracle_dice(found.segments, target, len(names))
        oracle = {name: _finite(per_class[label]) for label, name in names.items() if label}
    return {
        "case_id": case.id,
        "fold": fold,
        "seconds": found.seconds,
        "supervoxel_seconds": found.stages.get("supervoxels"),
        "num_segments": found.num_segments,
        "oracle_dice": oracle,
        "dice_background": dice_background(found.labels, target),
        "classes": {
            name: {
                "dice": _finite(score.dice),
                "hd95_mm": _finite(score.hd95_mm),
                "assd_mm": _finite(score.assd_mm),
                "volume_ml": score.volume_ml,
                "target_volume_ml": score.target_volume_ml,
                "status": score.status,
            }
            for name, score in scores.items()
        },
    }


def _finite(value: float) -> float:
    """As a plain float; JSON's writer turns NaN and infinity into null."""
    return float(value) if math.isfinite(value) else math.nan
