"""The steps of `gpu_check.py`: each raises where something is wrong and returns what it found."""

import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cases
import cupy
import emulator
import torch
from torch import Tensor

from voxpool.kernels import _cuda, layout, pool_cupy, registry
from voxpool.kernels.registry import FLOAT_DTYPES
from voxpool.ops import Supervoxels, segment_pool, segment_unpool

Facts = dict[str, Any]

SPACE = (160, 192, 160)
CHANNELS = 64


class OnDevice:
    """The backend for tensors that live on the CPU: copies them to the GPU, and results back."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._call, getattr(pool_cupy, name))

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return _move(function(*(_move(a, "cuda") for a in args)), "cpu")


def _move(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, memory_format=torch.preserve_format)
    if isinstance(value, (list, tuple)):
        return type(value)(_move(v, device) for v in value)
    return value


@contextmanager
def _poisoned() -> Iterator[None]:
    """Fill memory that nobody initialised with NaN and the largest integers."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _same_bits(a: Tensor, b: Tensor) -> None:
    assert torch.equal(cases.bits(a), cases.bits(b)), "bits differ"


def brain(space: tuple[int, int, int], per_segment: int) -> tuple[Tensor, int]:
    """Cubes with wavy faces of about `per_segment` voxels, and a tenth of the slices ignored; (1, *S) int32 and K."""
    generator = torch.Generator("cuda").manual_seed(0)
    edge = max(1, round(per_segment ** (1 / 3)))
    ids = torch.zeros(space, dtype=torch.int64, device="cuda")
    count = 1
    for axis, length in enumerate(space):
        cells = -(-length // edge)
        coarse = torch.randn((1, 1, *(-(-s // 8) for s in space)), generator=generator, device="cuda")
        wave = torch.nn.functional.interpolate(coarse, size=space, mode="trilinear")[0, 0].mul(edge / 6).round().long()
        place = torch.arange(length, device="cuda").reshape((-1,) + (1,) * (2 - axis))
        ids = ids * cells + (place + wave).clamp(0, length - 1).div(edge, rounding_mode="floor")
        count *= cells
    ids[: max(1, space[0] // 10)] = -1
    return ids.to(torch.int32).unsqueeze(0), count


def device() -> Facts:
    """What is here, and whether the backend takes it."""
    assert _cuda.refusal() is None, _cuda.refusal()
    assert registry.select("cuda", torch.float32).name == "cupy"
    return {
        "gpu": torch.cuda.get_device_name(),
        "sm": ".".join(map(str, torch.cuda.get_device_capability())),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cupy": cupy.__version__,
    }


def correct() -> Facts:
    """Every case of the emulation, against the reference; then a volume, against float64 sums and maxima of torch."""
    with _poisoned():
        for case in cases.CASES.values():
            for dtype in FLOAT_DTYPES:
                for channels_last in (False, True):
                    cases.run(OnDevice(), case, dtype, channels_last=channels_last, planned=True)
    segments, count = brain((64, 72, 80), 1000)
    x = torch.randn((1, 8, 64, 72, 80), device="cuda")
    worst = 0.0
    for reduce in ("max", "sum", "mean"):
        ours = segment_pool(x, segments, count, reduce=reduce, backend="cupy")
        exact = segment_pool(x.double(), segments, count, reduce=reduce, backend="torch")
        error = (ours - exact).abs().max().item()
        assert error == 0 if reduce == "max" else error < 1e-3, (reduce, error)
        worst = max(worst, error)
    return {"cases": len(cases.CASES) * len(FLOAT_DTYPES) * 2, "largest error of a sum": f"{worst:.1e}"}


def small() -> Facts:
    """A few launches of every kernel, for compute-sanitizer."""
    for case in cases.SMALL.values():
        for channels_last in (False, True):
            cases.run(OnDevice(), case, torch.float32, channels_last=channels_last, planned=True)
    return {}


def repeats() -> Facts:
    """Twenty times the same bits, while other work runs beside."""
    segments, count = brain((96, 96, 96), 2000)
    flat = segments.reshape(1, -1)
    noise, side = torch.randn(1 << 24, device="cuda"), torch.cuda.Stream()
    for dtype in FLOAT_DTYPES:
        for channels_last in (False, True):
            x = torch.randn((1, 16, flat.shape[1]), device="cuda").to(dtype)
            x = layout.arrange(x, channels_last=channels_last)
            plan = pool_cupy.plan(flat, count, (96, 96, 96))
            runs = []
            for _ in range(20):
                with torch.cuda.stream(side):
                    noise.sin_()
                runs.append([*pool_cupy.segment_max(x, flat, count, plan), pool_cupy.segment_sum(x, flat, count, plan)])
            for run in runs[1:]:
                for first, again in zip(runs[0], run, strict=True):
                    _same_bits(first, again)
    return {"runs": 20}


def streams() -> Facts:
    """On another stream than the default, in the order of that stream."""
    space = (64, 64, 64)
    segments, count = brain(space, 1000)
    flat = segments.reshape(1, -1)
    plan = pool_cupy.plan(flat, count, space)
    x = torch.zeros((1, 4, flat.shape[1]), device="cuda")
    pool_cupy.unpool(pool_cupy.segment_max(x, flat, count, plan)[0], flat, None, False)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # launched on any other stream, the kernels would run before the map is filled
        torch.cuda._sleep(200_000_000)
        x.fill_(3)
        pooled, _ = pool_cupy.segment_max(x, flat, count, plan)
        out = pool_cupy.unpool(pooled, flat, None, False)
    stream.synchronize()
    assert torch.equal(out, torch.where(flat >= 0, 3.0, 0.0).unsqueeze(1).expand_as(out))
    return {}


def graph() -> Facts:
    """Captured in a CUDA graph with a plan, and replayed on new values."""
    space = (64, 64, 64)
    segments, count = brain(space, 1000)
    flat = segments.reshape(1, -1)
    plan = pool_cupy.plan(flat, count, space)
    x = torch.zeros((1, 8, flat.shape[1]), device="cuda")

    def work() -> list[Tensor]:
        maxima, argmax = pool_cupy.segment_max(x, flat, count, plan)
        means, _ = pool_cupy.segment_mean(x, flat, count, plan)
        size = flat.shape[1]
        return [maxima, means, pool_cupy.unpool(means, flat, x, False), pool_cupy.scatter(maxima, argmax, size, False)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        results = work()
    for seed in range(3):
        x.copy_(torch.randn(x.shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda"))
        captured.replay()
        torch.cuda.synchronize()
        for a, b in zip(results, work(), strict=True):
            _same_bits(a, b)
    return {}


def gradients() -> Facts:
    """First and second order in float64, opcheck's rules, and no wait for the device with a plan."""
    segments = torch.randint(-1, 5, (2, 3, 4, 5), device="cuda", dtype=torch.int32)
    x = torch.randn((2, 2, 3, 4, 5), device="cuda", dtype=torch.float64, requires_grad=True)
    supervoxels = Supervoxels.of(segments, 6)
    for reduce in ("max", "sum", "mean"):

        def pool(values: Tensor, reduce: Any = reduce) -> Tensor:
            return segment_pool(values, supervoxels, reduce=reduce)

        assert torch.autograd.gradcheck(pool, x)
        assert torch.autograd.gradgradcheck(pool, x)
        torch.cuda.set_sync_debug_mode("error")
        pool(x).sum().backward()
        torch.cuda.set_sync_debug_mode("default")
        compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), pool(x))
    return {}


def large() -> Facts:
    """More than 2^31 elements, in half precision: their last channel is right."""
    space, channels = (256, 256, 256), 136
    segments, count = brain(space, 4000)
    x = torch.zeros((1, channels, *space), device="cuda", dtype=torch.float16)
    assert x.numel() > 2**31
    x[:, -1] = torch.randn(space, device="cuda").to(torch.float16)
    x.requires_grad_()
    pooled, argmax = segment_pool(x, segments, count, return_argmax=True, backend="cupy")
    expected = segment_pool(x[:, -1:].detach(), segments, count, return_argmax=True, backend="torch")
    assert torch.equal(pooled[:, -1:], expected[0])
    assert torch.equal(argmax[:, -1:], expected[1])
    (gradient,) = torch.autograd.grad(pooled[:, -1].sum(), x)
    assert gradient[:, -1].sum(dtype=torch.float32) == expected[1].ge(0).sum()
    assert not gradient[:, :-1].any()
    del gradient
    out = segment_unpool(pooled.detach(), segments, backend="cupy")
    assert torch.equal(out[:, -1:], segment_unpool(expected[0], segments, backend="torch"))
    return {"elements": x.numel()}


def emulation() -> Facts:
    """The same bits as the emulation on the CPU: what CI proves there holds here."""
    names = [name for dtype in FLOAT_DTYPES for name in pool_cupy.kernel_names(dtype)]
    results: dict[str, list[list[Tensor]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        library = emulator.build(_cuda.source("pool.cu"), names, Path(folder))
        emulated, on_gpu = emulator.Emulated(library, names), _cuda.module
        for where in ("gpu", "cpu"):
            kernels: Any = OnDevice() if where == "gpu" else pool_cupy
            _cuda.module = on_gpu if where == "gpu" else lambda *_: emulated
            results[where] = [
                cases.run(kernels, case, dtype, channels_last=last, planned=True)
                for case in cases.CASES.values()
                for dtype in FLOAT_DTYPES
                for last in (False, True)
            ]
    for gpu, cpu in zip(results["gpu"], results["cpu"], strict=True):
        for a, b in zip(gpu, cpu, strict=True):
            # the bits of a NaN are the processor's affair
            assert torch.equal(cases.bits(a.nan_to_num(7.5)), cases.bits(b.nan_to_num(7.5)))
    return {"results": len(results["gpu"])}


def _milliseconds(work: Callable[[int], object], repeats: int = 30) -> float:
    """Median time of a call that gets 0, 1, 2, ... to take another input each time."""
    for i in range(3):
        work(i)
    times = []
    for i in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # keeps the device busy until the host has handed over all of the work
        torch.cuda._sleep(2_000_000)
        start.record()
        work(i)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def _bandwidth() -> tuple[float, float]:
    """Bytes per millisecond that a copy moves (both ways) and that filling with zeros writes."""
    block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(block)
    copied = _milliseconds(lambda i: other.copy_(block))
    filled = _milliseconds(lambda i: block.zero_())
    return 2 * block.numel() / copied, block.numel() / filled


def _row(op: str, milliseconds: float, floor: float) -> Facts:
    return {"op": op, "ms": milliseconds, "floor_ms": floor, "percent": 100 * floor / milliseconds}


def _time_maps(dtype: torch.dtype, last: bool, ids: Tensor, count: int, plan: list[Tensor]) -> dict[str, float]:
    """Milliseconds of each operation on maps of a dtype and layout."""
    first = torch.randn((1, CHANNELS, ids.shape[1]), device="cuda").to(dtype)
    # two maps in turn, both larger than any cache
    xs = [layout.arrange(first, channels_last=last), layout.arrange(-first, channels_last=last)]
    maxima, argmax = pool_cupy.segment_max(xs[0], ids, count, plan)
    return {
        "max": _milliseconds(lambda i: pool_cupy.segment_max(xs[i % 2], ids, count, plan)),
        "mean": _milliseconds(lambda i: pool_cupy.segment_mean(xs[i % 2], ids, count, plan)),
        "max backward": _milliseconds(lambda i: pool_cupy.scatter(maxima, argmax, ids.shape[1], last)),
        "mean backward": _milliseconds(lambda i: pool_cupy.unpool(maxima, ids, None, last)),
        "unpool + base": _milliseconds(lambda i: pool_cupy.unpool(maxima, ids, xs[i % 2], last)),
    }


def timing() -> Facts:
    """Times at (1, 64, 160, 192, 160), K ~ 2000, beside what the bandwidth allows for the bytes that must move."""
    segments, count = brain(SPACE, 2400)
    ids = segments.reshape(1, -1)
    copied, filled = _bandwidth()
    plan = pool_cupy.plan(ids, count, SPACE)
    small = 4 * ids.numel()
    rows = [_row("plan", _milliseconds(lambda i: pool_cupy.plan(ids, count, SPACE)), small / copied)]
    for dtype in (torch.float32, torch.bfloat16):
        for last in (False, True):
            whole = CHANNELS * ids.numel() * dtype.itemsize
            floors = {
                "max": (whole + small) / copied,
                "mean": (whole + small) / copied,
                "max backward": whole / filled,
                "mean backward": small / copied + whole / filled,
                "unpool + base": (2 * whole + small) / copied,
            }
            name = f"{str(dtype).removeprefix('torch.')}{' channels-last' if last else ''}"
            took = _time_maps(dtype, last, ids, count, plan)
            rows += [_row(f"{op} {name}", took[op], floor) for op, floor in floors.items()]
            torch.cuda.empty_cache()
    return {"copy": f"{copied / 1e9:.2f} TB/s", "fill": f"{filled / 1e9:.2f} TB/s", "K": count, "rows": rows}


STEPS: dict[str, Callable[[], Facts]] = {
    step.__name__: step
    for step in (device, correct, repeats, streams, graph, gradients, large, emulation, small, timing)
}
