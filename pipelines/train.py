"""One network for use: trained on all cases of a data set, by one process or by several that `torchrun` started."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console

from voxpool.data import Dataset
from voxpool.errors import UsageError
from voxpool.inference import select_device
from voxpool.io import write_json
from voxpool.model_package import save_package
from voxpool.ranks import current_ranks, joined
from voxpool_pipelines.config import BASE, CrossvalConfig, Variant, head_variants, net_specs
from voxpool_pipelines.run_folder import case_records, describe, locked, start_run
from voxpool_pipelines.variants import cache_cases, check_nets, open_run, train_variant


def train_model(
    dataset: Dataset,
    config: CrossvalConfig,
    *,
    out: Path,
    device: str = "auto",
    console: Console | None = None,
    checkpoint_seconds: float = 30.0,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Train a network on all cases, then the head that the configuration asks for.

    Args:
        dataset: Cases with labels, checked.
        config: What to train: one network, and at most one head on one kind of supervoxels.
        out: Run folder; an interrupted run in it is continued. Several processes must see one and the same.
        device: "auto", "cpu", "cuda", ...
        console: Where progress is shown.
        checkpoint_seconds: Time between checkpoints.
        cancelled: Asked before every training step; must say the same to all processes.

    Returns:
        The model package, `out/model`.

    Raises:
        UsageError: If the folder holds another run, or several processes are given minutes instead of iterations.
        Cancelled: If `cancelled` said so; the state is saved.

    Determinism: as `voxpool.engine.train`; a run that was killed ends with the bytes of one that was not.
    """
    with joined(device) as own, ExitStack() as stack:
        ranks = current_ranks()
        if ranks.world > 1 and config.iterations is None:
            raise UsageError("several processes cannot agree on minutes; give --iterations")
        chosen = select_device(own)
        torch.use_deterministic_algorithms(config.deterministic)
        check_nets(config, dataset)
        if ranks.leads:
            stack.enter_context(locked(out))
            start_run(out, describe(dataset, config, device=str(chosen), status="running"), case_records(dataset))
        shown = console or Console(quiet=not ranks.leads)
        if (out / "model").exists():
            shown.print(f"{out / 'model'}: done before", highlight=False, markup=False, soft_wrap=True)
            if ranks.leads:
                write_json(out / "run.json", describe(dataset, config, device=str(chosen), status="done"))
            return out / "model"
        run = open_run(out, dataset, config, device=chosen, console=shown, checkpoint_seconds=checkpoint_seconds)
        cases = list(cache_cases(run).values())
        (spec,) = net_specs(config)
        for variant in (Variant(spec, BASE), *head_variants(config, spec)):
            trained = train_variant(run, variant, None, cases, cancelled)
        if ranks.leads:
            save_package(trained.net, trained.info, out / "model")
            write_json(out / "run.json", describe(dataset, config, device=str(chosen), status="done"))
            for place in (out / "variants").glob("*/all/training"):
                shutil.rmtree(place)
    return out / "model"
