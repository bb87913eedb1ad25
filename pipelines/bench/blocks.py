"""Dice and time of a network for volumes that computes simple blocks at half resolution, for some thresholds."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from voxpool.data import Dataset
from voxpool.data.cache import cache_case
from voxpool.engine import memory_format, to_device, use_bf16
from voxpool.errors import ModelError
from voxpool.inference import select_device
from voxpool.io import write_json
from voxpool.layers.counts import count_macs_of
from voxpool.metrics import dice
from voxpool.model_package import ModelInfo, load_package
from voxpool.nets.segblocks import SegBlocks, complexity
from voxpool.ops.block_pad import BlockGrid
from voxpool_pipelines.bench.machine import describe_machine, watch_other_work
from voxpool_pipelines.bench.output import require_folder, say
from voxpool_pipelines.bench.timing import measure_cpu, measure_cuda
from voxpool_pipelines.console import task

WHOLE = "network"


def run_bench_blocks(
    model: Path,
    dataset: Dataset,
    *,
    thresholds: tuple[float, ...],
    block: int,
    cases: int | None,
    device: str,
    json: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Segment volumes whole, with the network and with blocks, in turn; print Dice, seconds and GMAC.

    Args:
        model: Model package without a supervoxel head.
        dataset: Cases with labels of the model's classes.
        thresholds: Values of τ.
        block: Side of a block in voxels.
        cases: How many cases; None for all.
        device: "auto", "cpu", "cuda", ...
        json: File for everything measured.
        console: Gets the table.

    Returns:
        What the JSON file holds.

    Raises:
        ModelError: If the model has a head, or is one for whole heads.
    """
    require_folder(json)
    net, info = load_package(model)
    if info.head != "base" or info.net != "voxresnet":
        raise ModelError(f"{model.name} is {info.net} with head {info.head}; give a VoxResNet without head")
    chosen = select_device(device)
    net = to_device(net, chosen)
    other_work = watch_other_work()
    rows: list[dict[str, Any]] = []
    some = dataset.cases[:cases]
    with task(console, "segmenting") as update, tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(some):
            ready = cache_case(case, info.preprocess, stride=block, folder=Path(folder))
            image = torch.from_numpy(np.array(ready.image)).float()[None]
            x = image.to(chosen, memory_format=memory_format(net))
            lost = complexity(x, block)
            grids: dict[str, BlockGrid | None] = {WHOLE: None}
            grids |= {f"{threshold:g}": BlockGrid(lost > threshold) for threshold in thresholds}
            for name, grid in grids.items():
                found, row = _measure(net, SegBlocks(net, block=block), x, grid)
                labels = np.asarray(ready.labels)
                scores = {label: dice(found == id_, labels == id_) for id_, label in info.label_names.items() if id_}
                rows.append({"case": case.id, "tau": name, **row, "dice": scores})
            update((number + 1) / len(some), case.id)
    result = {
        "machine": describe_machine(chosen),
        "model": {"net": info.net, "options": info.net_options, "training": info.training},
        "block": block,
        "rows": rows,
        "other_work": other_work(),
    }
    console.print(_table(rows, info))
    if json:
        write_json(json, result)
        say(console, f"measured values: {json}")
    return result


def _measure(
    net: nn.Module, wrapped: SegBlocks, x: Tensor, grid: BlockGrid | None
) -> tuple[np.ndarray, dict[str, float]]:
    """Labels of a volume by the network, or by blocks; and what they cost."""
    device, found = x.device, []

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16("auto", device)):
            found.append((net(x) if grid is None else wrapped(x, grid)).argmax(1)[0].to(torch.uint8))

    macs = count_macs_of(net, run)  # the first run, which prepares, is not timed
    seconds, _ = (measure_cuda if device.type == "cuda" else measure_cpu)(run)
    share = 1.0 if grid is None else grid.num_high / grid.high.numel()
    return found[-1].cpu().numpy(), {"share_high": share, "gmacs": macs / 1e9, "seconds": seconds}


def _table(rows: list[dict[str, Any]], info: ModelInfo) -> Table:
    names = [label for number, label in info.label_names.items() if number]
    table = Table(title="mean over cases: Dice in percent, seconds of the network alone", title_justify="left")
    for name in ("tau", *names, "mean", "full blocks", "GMAC", "s"):
        table.add_column(name, justify="left" if name == "tau" else "right", no_wrap=True)
    for tau in dict.fromkeys(row["tau"] for row in rows):
        own = [row for row in rows if row["tau"] == tau]
        dices = [float(np.nanmean([row["dice"][name] for row in own])) for name in names]
        table.add_row(
            tau,
            *(f"{100 * each:.1f}" for each in [*dices, float(np.mean(dices))]),
            f"{100 * np.mean([row['share_high'] for row in own]):.0f} %",
            f"{np.mean([row['gmacs'] for row in own]):.1f}",
            f"{np.median([row['seconds'] for row in own]):.2f}",
        )
    return table
