"""Cross-validation: every network and head trained fold by fold, scored on the cases held out.

State lies on disk alone: a (variant, fold) is done when its `result.json` is there, and a training goes on from its
checkpoint. Killed at any time and started again, a run goes on where it was.
"""

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from voxpool.batches import case_batches, guided_batches
from voxpool.data import Case, Dataset, Fold
from voxpool.data.cache import TrainingCase, cache_case, with_segments
from voxpool.data.transforms import Method, PreprocessConfig, SupervoxelConfig
from voxpool.engine import Draw, TrainConfig, TrainResult, train
from voxpool.inference import Segmenter, select_device
from voxpool.io import read_labels, read_volume, write_json, write_volume
from voxpool.metrics import dice_background, score_case
from voxpool.model_package import BUNDLED, ModelInfo, load_package, save_package
from voxpool.nets import HEADS, add_head, count_parameters, create_net
from voxpool.supervoxels import choose_n_segments, oracle_dice
from voxpool_pipelines.config import BASE, CONTROL, GUIDED, CrossvalConfig, NetSpec, Variant, head_variants, net_specs
from voxpool_pipelines.console import show_training, task
from voxpool_pipelines.finetune import begin_from, guided_options, guided_spacing
from voxpool_pipelines.prepare import channel_names, working_spacing
from voxpool_pipelines.run_folder import case_records, describe, fold_folder, locked, read_json, start_run

MAX_STRIDE, GUIDED_STRIDE = 8, 32
CALIBRATION_STEPS = 4, 16  # a short training and a longer one
# oracle Dice is alike from case to case: a few training cases choose the number of supervoxels
ORACLE_CASES = 4
FINE_PER_COARSE = 8
"""Fine supervoxels per coarse one, for heads of two levels."""

COMPACTNESSES = (0.05, 0.1, 0.2)
"""What `--compactness auto` chooses among."""


@dataclass(frozen=True)
class _Run:
    """What every step of a run needs to know."""

    folder: Path
    dataset: Dataset
    config: CrossvalConfig
    preprocess: PreprocessConfig
    device: torch.device
    console: Console

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


def crossval(
    dataset: Dataset,
    folds: Sequence[Fold],
    config: CrossvalConfig,
    *,
    out: Path,
    device: str = "auto",
    console: Console | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Cross-validate the networks and heads of a configuration on a data set.

    Args:
        dataset: Cases with labels, checked.
        folds: The splits.
        config: What to train, and how.
        out: Run folder; an interrupted run in it is continued.
        device: "auto", "cpu", "cuda", ...
        console: Where progress is shown.
        cancelled: Asked before every training step.

    Returns:
        The run folder, with `result.json` of every variant and fold.

    Raises:
        UsageError: If the folder holds another run.
        Cancelled: If `cancelled` said so; the state is saved.
    """
    chosen = select_device(device)
    torch.use_deterministic_algorithms(config.deterministic)
    for spec in net_specs(config):
        _new_net(config, dataset, spec)  # a wrong name or option ends here, before anything is written
    with locked(out):
        start_run(out, describe(dataset, config, device=str(chosen), status="running"), case_records(dataset))
        guided = _guided(config)
        spacing = guided_spacing(config.spacing) if guided else working_spacing(dataset, config.spacing)
        preprocess = PreprocessConfig(spacing=spacing)
        run = _Run(out, dataset, config, preprocess, chosen, console or Console())
        cached = _cache_cases(run)
        for fold in config.only_folds or range(len(folds)):
            for spec in net_specs(config):
                _run_spec(run, spec, fold, folds[fold], cached, cancelled)
        write_json(out / "run.json", describe(dataset, config, device=str(chosen), status="done"))
    return out


def _cache_cases(run: _Run) -> dict[str, TrainingCase]:
    cached = {}
    stride = GUIDED_STRIDE if _guided(run.config) else MAX_STRIDE
    with task(run.console, "preparing cases") as update:
        for number, case in enumerate(run.dataset.cases):
            cached[case.id] = cache_case(case, run.preprocess, stride=stride, folder=run.cache)
            update((number + 1) / len(run.dataset.cases), case.id)
    return cached


def _run_spec(
    run: _Run,
    spec: NetSpec,
    fold: int,
    split: Fold,
    cached: dict[str, TrainingCase],
    cancelled: Callable[[], bool] | None,
) -> None:
    """One base network on one fold, then all that is fine-tuned from it."""
    base = Variant(spec, BASE)
    variants = [base, *head_variants(run.config, spec)]
    cases = [cached[case_id] for case_id in split.train]
    for variant in variants:
        place = fold_folder(run.folder, variant, fold)
        if (place / "result.json").exists():
            continue
        iterations = _iterations(run, spec, cases)
        supervoxels = None
        if variant.segments:
            supervoxels = _supervoxel_config(run, variant.segments, fold, cases)
            if HEADS[variant.head].get("levels", 1) > 1:
                supervoxels = replace(supervoxels, per_coarse=FINE_PER_COARSE)
        result, net = _train_variant(run, variant, fold, cases, supervoxels, iterations, cancelled)
        _evaluate(run, variant, fold, split, net, supervoxels, result)
        shutil.rmtree(place / "training", ignore_errors=True)


def _iterations(run: _Run, spec: NetSpec, cases: Sequence[TrainingCase]) -> int:
    """Steps of a base training: as asked, or what the minutes allow, measured once for all folds."""
    if run.config.iterations is not None:
        return run.config.iterations
    path = run.folder / "plan.json"
    plan: dict[str, int] = read_json(path) if path.exists() else {}
    if spec.id not in plan:
        net = _new_net(run.config, run.dataset, spec)
        folder = run.folder / "calibration"
        seconds = []
        for steps in CALIBRATION_STEPS:
            shutil.rmtree(folder, ignore_errors=True)
            config = _train_config(run, Variant(spec, BASE), steps)
            result = train(net, _batches(spec, cases, config, net), config, folder=folder, device=run.device)
            seconds.append(result.seconds)
        shutil.rmtree(folder, ignore_errors=True)
        assert run.config.minutes is not None  # the configuration holds one of the two
        # the difference, not the quotient: what a training costs once would count for every step
        per_step = (seconds[1] - seconds[0]) / (CALIBRATION_STEPS[1] - CALIBRATION_STEPS[0])
        per_step = max(per_step, seconds[1] / CALIBRATION_STEPS[1] / 2)  # should the machine have paused in the first
        plan[spec.id] = max(1, int(60 * run.config.minutes / per_step))
        write_json(path, plan)
        run.console.print(
            f"{spec.id}: {plan[spec.id]} iterations fit into {run.config.minutes:g} minutes", highlight=False
        )
    return plan[spec.id]


def _supervoxel_config(run: _Run, method: Method, fold: int, cases: Sequence[TrainingCase]) -> SupervoxelConfig:
    """Number and compactness: as asked, or the fewest supervoxels that reach the oracle on the training cases."""
    config = run.config
    if config.n_segments is not None:
        return SupervoxelConfig(method, config.n_segments, _compactnesses(config)[0])
    path = run.folder / "supervoxels" / f"fold{fold}-{method}.json"
    if not path.exists():
        some = cases[:ORACLE_CASES]
        with task(run.console, f"fold {fold}: choosing the number of {method} supervoxels"):
            choice = choose_n_segments(
                [np.asarray(case.image[0]) for case in some],
                [np.asarray(case.labels) for case in some],
                target=config.target_oracle,
                num_classes=len(run.dataset.label_names),
                masks=[np.asarray(case.mask) for case in some],
                spacings=[case.spacing for case in some],
                method=method,
                compactness=_compactnesses(config),
            )
        path.parent.mkdir(exist_ok=True)
        write_json(
            path,
            {
                "method": method,
                "n_segments": choice.n_segments,
                "compactness": choice.compactness,
                "oracle_dice": choice.oracle,
                "target": config.target_oracle,
                "reached": choice.reached,
                "cases": [case.case_id for case in some],
            },
        )
    found = read_json(path)
    return SupervoxelConfig(method, found["n_segments"], found["compactness"])


def _compactnesses(config: CrossvalConfig) -> tuple[float, ...]:
    return COMPACTNESSES if config.compactness == "auto" else (config.compactness,)


def _guided(config: CrossvalConfig) -> bool:
    return any(spec.net == GUIDED for spec in net_specs(config))


def _batches(spec: NetSpec, cases: Sequence[TrainingCase], config: TrainConfig, net: nn.Module) -> Draw:
    draw = guided_batches if spec.net == GUIDED else case_batches
    return draw(cases, config, net)


def _train_config(run: _Run, variant: Variant, iterations: int) -> TrainConfig:
    config = run.config
    base = variant.head == BASE
    new = base and variant.spec.net != GUIDED
    return TrainConfig(
        iterations=iterations,
        crop=(config.crop,) * 3,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate if new else config.finetune_learning_rate,
        auxiliary_weight=config.auxiliary_weight if new else 0.0,
        amp=config.amp,
        # another seed than the base's: fine-tuning continues on other crops
        seed=2 * config.seed + (0 if base else 1),
    )


def _new_net(config: CrossvalConfig, dataset: Dataset, spec: NetSpec) -> nn.Module:
    torch.manual_seed(config.seed)
    if spec.net == GUIDED:
        return begin_from(config.init or BUNDLED, dataset, config.convention)
    return create_net(spec.net, len(dataset.cases[0].images), len(dataset.label_names), **spec.options)


def _initial_net(run: _Run, variant: Variant, fold: int) -> nn.Module:
    """New weights for a base network; for all else the fold's trained base."""
    if variant.head == BASE:
        return _new_net(run.config, run.dataset, variant.spec)
    base, _ = load_package(fold_folder(run.folder, Variant(variant.spec, BASE), fold) / "model")
    if variant.head == CONTROL:
        return base
    torch.manual_seed(run.config.seed)
    return add_head(base, variant.head)


def _train_variant(
    run: _Run,
    variant: Variant,
    fold: int,
    cases: Sequence[TrainingCase],
    supervoxels: SupervoxelConfig | None,
    iterations: int,
    cancelled: Callable[[], bool] | None,
) -> tuple[TrainResult, nn.Module]:
    place = fold_folder(run.folder, variant, fold)
    net = _initial_net(run, variant, fold)
    if variant.head != BASE:
        iterations = max(1, round(run.config.finetune_share * iterations))
    if supervoxels is not None:
        with task(run.console, f"fold {fold} {variant.id}: supervoxels") as update:
            prepared = []
            for number, case in enumerate(cases):
                prepared.append(with_segments(case, supervoxels))
                update((number + 1) / len(cases), case.case_id)
            cases = prepared
    with task(run.console, f"fold {fold} {variant.id}: training") as update:
        config = _train_config(run, variant, iterations)
        result = train(
            net,
            _batches(variant.spec, cases, config, net),
            config,
            folder=place / "training",
            device=run.device,
            progress=partial(show_training, update),
            cancelled=cancelled,
        )
    shutil.copyfile(place / "training" / "log.csv", place / "log.csv")
    save_package(net, _model_info(run, variant, fold, cases, supervoxels, result), place / "model")
    return result, net


def _model_info(
    run: _Run,
    variant: Variant,
    fold: int,
    cases: Sequence[TrainingCase],
    supervoxels: SupervoxelConfig | None,
    result: TrainResult,
) -> ModelInfo:
    return ModelInfo(
        net=variant.spec.net,
        net_options=_net_options(run, variant.spec),
        head=variant.net_head,
        channels=channel_names(run.dataset),
        label_names=run.dataset.label_names,
        convention=run.dataset.convention,
        preprocess=run.preprocess,
        supervoxels=supervoxels,
        training={
            "data": run.dataset.name,
            "variant": variant.id,
            "fold": fold,
            "cases": [case.case_id for case in cases],
            "iterations": result.iterations,
            "seed": run.config.seed,
        },
    )


def _net_options(run: _Run, spec: NetSpec) -> dict[str, Any]:
    return guided_options(run.dataset, run.config.convention) if spec.net == GUIDED else dict(spec.options)


def _evaluate(
    run: _Run,
    variant: Variant,
    fold: int,
    split: Fold,
    net: nn.Module,
    supervoxels: SupervoxelConfig | None,
    trained: TrainResult,
) -> None:
    """Segment and score the held-out cases, then write `result.json`: the (variant, fold) is done."""
    place = fold_folder(run.folder, variant, fold)
    info = _model_info(run, variant, fold, [], supervoxels, trained)
    segmenter = Segmenter(copy.deepcopy(net), info, device=run.device, amp=run.config.amp)
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
            "parameters": count_parameters(net),
            "iterations": trained.iterations,
            "train_seconds": trained.seconds,
            "compactness": supervoxels.compactness if supervoxels and supervoxels.method == "slic" else None,
            "n_segments": supervoxels.n_segments if supervoxels else None,
            "seed": run.config.seed,
            "cases": rows,
        },
    )
    foreground = np.nanmean([score["dice"] for row in rows for score in row["classes"].values()])
    run.console.print(f"fold {fold} {variant.id}: foreground Dice {foreground:.3f}", highlight=False, soft_wrap=True)


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
