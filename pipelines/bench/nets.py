"""Times of networks for images: alone, with superpixels, and with blocks of two resolutions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from voxpool.data2d.transforms import superpixels, to_tensor
from voxpool.engine import Amp, to_device, use_bf16
from voxpool.inference import select_device
from voxpool.io import write_json
from voxpool.io.image import read_image
from voxpool.layers.counts import count_macs, count_macs_of
from voxpool.nets import count_parameters, create_net
from voxpool.nets.segblocks import SegBlocks, complexity
from voxpool.nets2d import PLANAR_NETS, SuperpixelBranch
from voxpool.ops.block_pad import BlockGrid
from voxpool_pipelines.bench.machine import describe_machine, watch_other_work
from voxpool_pipelines.bench.output import require_folder, say
from voxpool_pipelines.bench.timing import Timing, interleave, measure_cpu, measure_cuda

PIXELS_EACH = 524.0
"""Pixels of a superpixel: 1000 of them in an image of 512 × 1024, as in the paper."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        size: (H, W) of the image.
        image: An image file; without it a made one, half of it plain.
        thresholds: Values of τ for blocks of two resolutions.
        block: Side of a block.
        amp: As in training.
        samples: Undisturbed samples wanted of each time.
    """

    size: tuple[int, int] = (512, 1024)
    image: Path | None = None
    thresholds: tuple[float, ...] = (0.2, 0.3, 0.5)
    block: int = 128
    amp: Amp = "auto"
    samples: int = 7


def run_bench_nets(
    names: tuple[str, ...],
    what: Plan,
    *,
    device: str,
    json: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Time networks on one image, print tables, and write JSON if asked for.

    Args:
        names: Keys of `voxpool.nets2d.PLANAR_NETS`.
        what: On which image, and how often.
        device: "auto", "cpu", "cuda", ...
        json: File for everything measured.
        console: Gets the tables.

    Returns:
        What the JSON file holds.
    """
    require_folder(json)
    chosen = select_device(device)
    other_work = watch_other_work()
    rows = []
    for name in names:
        row = _measure(name, what, chosen)
        rows.append(row)
        console.print(_table(row))
    result = {
        "machine": describe_machine(chosen),
        "size": list(what.size),
        "image": "given" if what.image else "made",
        "bf16": use_bf16(what.amp, chosen),
        "block": what.block,
        "nets": rows,
        "other_work": other_work(),
    }
    if result["other_work"] > 0.05:
        say(console, f"other programs took {100 * result['other_work']:.0f} % of the processor")
    if json:
        write_json(json, result)
        say(console, f"measured values: {json}")
    return result


def _picture(path: Path | None, size: tuple[int, int]) -> Tensor:
    """Colours (3, H, W): those of a file, or noise on the left and a slope on the right."""
    if path is not None:
        return to_tensor(read_image(path, size))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((3, *size), generator=generator)
    noise[..., size[1] // 2 :] = torch.linspace(-1, 1, size[1] - size[1] // 2)
    return noise


def _measure(name: str, what: Plan, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    picture = _picture(what.image, what.size)
    with torch.device("meta"):
        macs = count_macs(create_net(name), (1, *picture.shape))
    net = to_device(create_net(name).eval(), device)
    x = picture[None].to(device, memory_format=torch.channels_last)
    segments = superpixels(picture, PIXELS_EACH, 0.1)[None].to(device)
    count = int(segments.max()) + 1
    branch = to_device(SuperpixelBranch(net).eval(), device)
    wrapped, padded = SegBlocks(net, block=what.block), _padded(x, what.block)
    lost = complexity(padded, what.block)
    grids = {threshold: BlockGrid(lost > threshold) for threshold in what.thresholds}

    def run(call: Callable[[], Any]) -> Callable[[], Any]:
        bf16 = use_bf16(what.amp, device)

        def timed() -> Any:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return call()

        return timed

    calls = {"net": run(partial(net, x)), "superpixels": run(partial(branch, x, segments, count))}
    calls |= {f"tau {threshold:g}": run(partial(wrapped, padded, grid)) for threshold, grid in grids.items()}
    measure = measure_cuda if device.type == "cuda" else measure_cpu
    times = interleave(calls, samples=what.samples, budget=60.0 * len(calls), measure=measure)
    # SLIC of this image runs on the CPU
    slic = {"slic": partial(superpixels, picture, PIXELS_EACH, 0.1)}
    times |= interleave(slic, samples=what.samples, budget=20.0, measure=measure_cpu)
    return {
        "name": name,
        "parameters": count_parameters(net),
        "gmacs": macs / 1e9,
        "memory_mib": _peak(calls["net"], device),
        "superpixels": count,
        "times": {key: _milliseconds(each) for key, each in times.items()},
        "blocks": [
            {
                "threshold": threshold,
                "share_high": grid.num_high / grid.high.numel(),
                "gmacs": _block_macs(wrapped, padded, grid) / 1e9,
                "memory_mib": _peak(calls[f"tau {threshold:g}"], device),
                **_milliseconds(times[f"tau {threshold:g}"]),
            }
            for threshold, grid in grids.items()
        ],
    }


def _padded(x: Tensor, block: int) -> Tensor:
    """To whole blocks, by the last pixels."""
    rows, columns = (-size % block for size in x.shape[2:])
    return functional.pad(x, (0, columns, 0, rows), mode="replicate")


def _block_macs(wrapped: nn.Module, x: Tensor, grid: BlockGrid) -> int:
    with torch.inference_mode():
        return count_macs_of(wrapped, lambda: wrapped(x, grid))


def _peak(call: Callable[[], Any], device: torch.device) -> float | None:
    """Most memory that a call takes beside what is there before, in MiB; None on a CPU, where torch does not count."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _milliseconds(timing: Timing) -> dict[str, Any]:
    numbers = {"ms": timing.seconds, "low_ms": timing.low, "high_ms": timing.high}
    return {key: 1000 * value for key, value in numbers.items()} | {"clean": timing.clean}


def _table(row: dict[str, Any]) -> Table:
    entry = PLANAR_NETS[row["name"]]
    title = f"{row['name']} ({entry.paper}): {row['parameters']:,} weights, {row['gmacs']:.2f} GMAC"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("", "ms", "from", "to", "FPS", "GMAC", "MiB"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)

    def add(name: str, times: dict[str, Any], gmacs: float | None, memory: float | None) -> None:
        numbers = (f"{times[key]:.1f}" for key in ("ms", "low_ms", "high_ms"))
        mark = "" if times["clean"] else " ~"
        size = "" if memory is None else f"{memory:.0f}"
        table.add_row(name + mark, *numbers, f"{1000 / times['ms']:.1f}", "" if gmacs is None else f"{gmacs:.2f}", size)

    times = row["times"]
    add("network", times["net"], row["gmacs"], row["memory_mib"])
    add(f"with {row['superpixels']} superpixels", times["superpixels"], None, None)
    add("their SLIC (CPU)", times["slic"], None, None)
    for each in row["blocks"]:
        name = f"blocks, tau {each['threshold']:g}: {100 * each['share_high']:.0f} % full"
        add(name, each, each["gmacs"], each["memory_mib"])
    return table
