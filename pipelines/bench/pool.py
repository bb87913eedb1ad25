"""The pooling benchmark: every method is checked, then all are timed in turn against what the memory allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from voxpool.inference import select_device
from voxpool.io import write_json, write_text
from voxpool_pipelines.bench.cases import CASES, QUICK_CASES, QUICK_SWEEPS, SWEEPS, Case, make_inputs
from voxpool_pipelines.bench.machine import describe_machine, watch_other_work
from voxpool_pipelines.bench.methods import Method, all_methods
from voxpool_pipelines.bench.output import require_folder, say
from voxpool_pipelines.bench.plot import draw_sweeps
from voxpool_pipelines.bench.reference import check_forward, check_gradient, make_reference
from voxpool_pipelines.bench.table import case_table
from voxpool_pipelines.bench.timing import Timing, interleave, measure_cpu, measure_cuda

PASSES = ("forward", "forward+backward")


@dataclass(frozen=True)
class Effort:
    """How thoroughly to time.

    Attributes:
        samples: Clean samples wanted of each method.
        seconds: Most seconds of timing per case.
    """

    samples: int
    seconds: float


_FULL = Effort(9, 40.0)
_SWEEP = Effort(5, 10.0)
_QUICK = Effort(3, 1.0)


def run_bench_pool(
    *, device: str, json: Path | None, plot: Path | None, quick: bool, console: Console, methods: Sequence[Method] = ()
) -> dict[str, Any]:
    """Time pooling, print a table per case, and write JSON and plot where asked for.

    The sweeps over the number of voxels and of supervoxels run only where one of the two files takes them.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:0".
        json: File for everything measured.
        plot: File for the sweeps as SVG.
        quick: Small maps: shows that all runs, not how fast.
        console: Gets the tables.
        methods: Methods to time; all by default.

    Returns:
        What the JSON file holds.

    Raises:
        UsageError: If the device is unknown.
        ResourceError: If there is no such device, or a file cannot be written.
        WrongResultError: If a method gives a wrong result.
    """
    target = select_device(device)
    for path in (json, plot):
        require_folder(path)
    methods = [method for method in methods or all_methods() if target.type in method.devices]
    machine = describe_machine(target)
    say(console, f"{machine['gpu'] or machine['processor']}, {machine['threads']} threads, torch {torch.__version__}")
    cases = []
    for case in QUICK_CASES if quick else CASES:
        cases.append(measure_case(case, target, methods, _QUICK if quick else _FULL))
        console.print(case_table(cases[-1]))
    sweeps: dict[str, list[dict[str, Any]]] = {}
    if json or plot:
        for over, steps in (QUICK_SWEEPS if quick else SWEEPS).items():
            say(console, f"sweep over {over}")
            sweeps[over] = [measure_case(case, target, methods, _QUICK if quick else _SWEEP) for case in steps]
    found = {"device": target.type, "quick": quick, "machine": machine, "cases": cases, "sweeps": sweeps}
    if json:
        write_json(json, found)
        say(console, f"measured values: {json}")
    if plot:
        write_text(plot, draw_sweeps(sweeps))
        say(console, f"plot: {plot}")
    return found


def measure_case(case: Case, device: torch.device, methods: Sequence[Method], effort: Effort) -> dict[str, Any]:
    """Check every method on one case, then time all of them and the limits in turn.

    Args:
        case: What to pool.
        device: Where.
        methods: How; those that cannot take the case are left out.
        effort: How thoroughly to time.

    Returns:
        Plain values for JSON: the case, the limits (`floors`) and one row per method, reduction and pass.

    Raises:
        WrongResultError: If a method gives a wrong result; nothing is timed then.
    """
    inputs = make_inputs(case, device)
    if device.type == "cuda":
        torch.cuda.set_device(inputs.x.device)  # where the events are recorded
    methods = [method for method in methods if case.plain or method.any_map]
    reference = make_reference(inputs)
    for method in methods:
        check_forward(method, inputs, reference)
        check_gradient(method, inputs, reference)
    entries = {
        (method, which): call
        for method in methods
        for which, call in zip(PASSES, (method.forward, method.gradient), strict=True)
        if call is not None
    }
    calls: dict[Any, Callable[[], object]] = dict(_floors(inputs.x))
    calls |= {key: partial(call, inputs) for key, call in entries.items()}
    measure = measure_cuda if device.type == "cuda" else measure_cpu
    other_work = watch_other_work()
    times = interleave(calls, samples=effort.samples, budget=effort.seconds, measure=measure)
    other_share = other_work()
    traffic = {
        which: inputs.x.numel() * inputs.x.itemsize * factor for which, factor in zip(PASSES, (1, 2), strict=True)
    }
    floors = {which: _row(times[which], 1, traffic[which]) for which in PASSES}
    rows = []
    for method, which in entries:
        row = _row(times[method, which], case.channels // (method.channels or case.channels), traffic[which])
        row |= {"ratio": row["ms"] / floors[which]["ms"]}
        rows.append({"reduce": method.reduce, "pass": which, "method": method.name, "note": method.note} | row)
    return {
        "title": f"{case.title}, {inputs.num_segments} supervoxels",
        "channels": case.channels,
        "space": list(case.space),
        "voxels": case.voxels,
        "num_segments": inputs.num_segments,
        "dtype": str(case.dtype).removeprefix("torch."),
        "layout": case.layout,
        "correct": True,
        "other_work": other_share,
        "floors": floors,
        "rows": rows,
    }


def _row(timing: Timing, scale: int, traffic: int) -> dict[str, Any]:
    """One measured time, scaled; GB/s counts what every method must move: the map read, its gradient written."""
    ms = timing.seconds * scale * 1000
    return {
        "ms": ms,
        "low_ms": timing.low * scale * 1000,
        "high_ms": timing.high * scale * 1000,
        "gb_per_s": traffic / ms / 1e6,
        "samples": timing.samples,
        "rejected": timing.rejected,
        "clean": timing.clean,
    }


def _floors(x: Tensor) -> dict[str, Callable[[], object]]:
    """The least that forward must do, reading the map, and forward and backward, writing a fresh one as well."""
    if x.device.type == "cuda":
        # a copy of half the map moves as many bytes as reading all of it
        flat = x.view(-1) if x.is_contiguous() else x.permute(0, 2, 3, 4, 1).reshape(-1)
        half = flat[: len(flat) // 2]
        target = torch.empty_like(half)
        return dict(zip(PASSES, (lambda: target.copy_(half), lambda: torch.empty_like(x).copy_(x)), strict=True))
    limits = import_module("voxpool.kernels.bandwidth_numba")
    return dict(zip(PASSES, (partial(limits.read, x), partial(limits.read_and_write, x)), strict=True))
