"""Training of the variants that a configuration asks for: base networks, and what is fine-tuned from them.

State lies on disk alone: a trained variant is its model package, and a training goes on from its checkpoint.
"""

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
from voxpool.data import Dataset
from voxpool.data.cache import TrainingCase, cache_case, with_segments
from voxpool.data.transforms import Method, PreprocessConfig, SupervoxelConfig
from voxpool.engine import Draw, TrainConfig, TrainResult, train
from voxpool.io import write_json
from voxpool.model_package import BUNDLED, ModelInfo, load_package, save_package
from voxpool.nets import HEADS, add_head, create_net
from voxpool.ranks import current_ranks
from voxpool.supervoxels import choose_n_segments
from voxpool_pipelines.config import BASE, CONTROL, GUIDED, CrossvalConfig, NetSpec, Variant, net_specs
from voxpool_pipelines.console import show_training, task
from voxpool_pipelines.finetune import begin_from, guided_options, guided_spacing
from voxpool_pipelines.prepare import channel_names, working_spacing
from voxpool_pipelines.run_folder import fold_folder, fold_name, read_json

MAX_STRIDE, GUIDED_STRIDE = 8, 32
CALIBRATION_STEPS = 4, 16  # a short training and a longer one
# oracle Dice is alike from case to case: a few training cases choose the number of supervoxels
ORACLE_CASES = 4
CHECKPOINT_SECONDS = 30.0
FINE_PER_COARSE = 8
"""Fine supervoxels per coarse one, for heads of two levels."""

COMPACTNESSES = (0.05, 0.1, 0.2)
"""What `--compactness auto` chooses among."""


@dataclass(frozen=True)
class Run:
    """What every step of a run needs to know.

    Attributes:
        folder: The run folder.
        dataset: Cases with labels.
        config: What to train, and how.
        preprocess: How volumes are prepared.
        device: Where to compute.
        console: Where progress is shown.
        checkpoint_seconds: Time between checkpoints.
    """

    folder: Path
    dataset: Dataset
    config: CrossvalConfig
    preprocess: PreprocessConfig
    device: torch.device
    console: Console
    checkpoint_seconds: float


@dataclass(frozen=True)
class Trained:
    """A trained variant.

    Attributes:
        net: With its weights.
        info: The description in its package.
        result: What its training came to.
    """

    net: nn.Module
    info: ModelInfo
    result: TrainResult


def open_run(
    folder: Path,
    dataset: Dataset,
    config: CrossvalConfig,
    *,
    device: torch.device,
    console: Console,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """A run, with the voxel size that its networks need.

    Args:
        folder: The run folder.
        dataset: Cases with labels.
        config: What to train, and how.
        device: Where to compute.
        console: Where progress is shown.
        checkpoint_seconds: Time between checkpoints.
    """
    spacing = guided_spacing(config.spacing) if _is_guided(config) else working_spacing(dataset, config.spacing)
    return Run(folder, dataset, config, PreprocessConfig(spacing=spacing), device, console, checkpoint_seconds)


def check_nets(config: CrossvalConfig, dataset: Dataset) -> None:
    """Build every network once.

    Raises:
        UsageError: For a wrong name or option, before anything is written.
    """
    for spec in net_specs(config):
        _new_net(config, dataset, spec)


def cache_cases(run: Run) -> dict[str, TrainingCase]:
    """Every case of a run, prepared, by its id; what was prepared before is read from the run folder."""
    cached = {}
    stride = GUIDED_STRIDE if _is_guided(run.config) else MAX_STRIDE
    with current_ranks().leader_first(), task(run.console, "preparing cases") as update:
        for number, case in enumerate(run.dataset.cases):
            cached[case.id] = cache_case(case, run.preprocess, stride=stride, folder=run.folder / "cache")
            update((number + 1) / len(run.dataset.cases), case.id)
    return cached


def train_variant(
    run: Run,
    variant: Variant,
    fold: int | None,
    cases: Sequence[TrainingCase],
    cancelled: Callable[[], bool] | None = None,
) -> Trained:
    """Train a variant, or go on with it, and write its model package and `log.csv`.

    Args:
        run: The run.
        variant: What to train; all but base networks begin from the base network of their fold.
        fold: Number of the fold; None for a training on all cases.
        cases: What to train on.
        cancelled: Asked before every step.

    Raises:
        Cancelled: If `cancelled` said so; the state is saved.
    """
    place, where = fold_folder(run.folder, variant, fold), f"{fold_name(fold)} {variant.id}"
    iterations = _iterations(run, variant.spec, cases)
    if variant.head != BASE:
        iterations = max(1, round(run.config.finetune_share * iterations))
    supervoxels = _supervoxels(run, variant, fold, cases)
    net = _initial_net(run, variant, fold)
    if supervoxels is not None:
        with task(run.console, f"{where}: supervoxels") as update:
            prepared = []
            for number, case in enumerate(cases):
                prepared.append(with_segments(case, supervoxels))
                update((number + 1) / len(cases), case.case_id)
            cases = prepared
    with task(run.console, f"{where}: training") as update:
        config = _train_config(run, variant, iterations)
        result = train(
            net,
            _batches(variant.spec, cases, config, net),
            config,
            folder=place / "training",
            device=run.device,
            progress=partial(show_training, update),
            cancelled=cancelled,
            checkpoint_seconds=run.checkpoint_seconds,
        )
    info = _model_info(run, variant, fold, cases, supervoxels, result)
    ranks = current_ranks()
    with ranks.leader_first():
        if ranks.leads:
            shutil.copyfile(place / "training" / "log.csv", place / "log.csv")
            save_package(net, info, place / "model")
    return Trained(net, info, result)


def _iterations(run: Run, spec: NetSpec, cases: Sequence[TrainingCase]) -> int:
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


def _supervoxels(
    run: Run, variant: Variant, fold: int | None, cases: Sequence[TrainingCase]
) -> SupervoxelConfig | None:
    """How a head's supervoxels are made: as asked, or as few as reach the oracle on the training cases."""
    method, config = variant.segments, run.config
    if method is None:
        return None
    if config.n_segments is not None:
        found = SupervoxelConfig(method, config.n_segments, _compactnesses(config)[0])
    else:
        path = run.folder / "supervoxels" / f"{fold_name(fold).replace(' ', '')}-{method}.json"
        with current_ranks().leader_first():
            if not path.exists():
                _choose_supervoxels(run, method, fold, cases[:ORACLE_CASES], path)
        chosen = read_json(path)
        found = SupervoxelConfig(method, chosen["n_segments"], chosen["compactness"])
    return replace(found, per_coarse=FINE_PER_COARSE) if HEADS[variant.head].get("levels", 1) > 1 else found


def _choose_supervoxels(run: Run, method: Method, fold: int | None, cases: Sequence[TrainingCase], path: Path) -> None:
    config = run.config
    with task(run.console, f"{fold_name(fold)}: choosing the number of {method} supervoxels"):
        choice = choose_n_segments(
            [np.asarray(case.image[0]) for case in cases],
            [np.asarray(case.labels) for case in cases],
            target=config.target_oracle,
            num_classes=len(run.dataset.label_names),
            masks=[np.asarray(case.mask) for case in cases],
            spacings=[case.spacing for case in cases],
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
            "cases": [case.case_id for case in cases],
        },
    )


def _compactnesses(config: CrossvalConfig) -> tuple[float, ...]:
    return COMPACTNESSES if config.compactness == "auto" else (config.compactness,)


def _is_guided(config: CrossvalConfig) -> bool:
    return any(spec.net == GUIDED for spec in net_specs(config))


def _batches(spec: NetSpec, cases: Sequence[TrainingCase], config: TrainConfig, net: nn.Module) -> Draw:
    draw = guided_batches if spec.net == GUIDED else case_batches
    return draw(cases, config, net)


def _train_config(run: Run, variant: Variant, iterations: int) -> TrainConfig:
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


def _initial_net(run: Run, variant: Variant, fold: int | None) -> nn.Module:
    """New weights for a base network; for all else the fold's trained base."""
    if variant.head == BASE:
        return _new_net(run.config, run.dataset, variant.spec)
    base, _ = load_package(fold_folder(run.folder, Variant(variant.spec, BASE), fold) / "model")
    if variant.head == CONTROL:
        return base
    torch.manual_seed(run.config.seed)
    return add_head(base, variant.head)


def _model_info(
    run: Run,
    variant: Variant,
    fold: int | None,
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


def _net_options(run: Run, spec: NetSpec) -> dict[str, Any]:
    return guided_options(run.dataset, run.config.convention) if spec.net == GUIDED else dict(spec.options)
