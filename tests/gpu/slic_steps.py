"""The steps of `gpu_check.py` for supervoxels."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slic_cases
import torch
from torch.nn.functional import interpolate

from voxpool.kernels import slic_cupy
from voxpool.supervoxels import slic
from voxpool.supervoxels.grid import cell_edges, fit_grid, occupancy

Facts = dict[str, Any]

SPACE = (160, 192, 160)
WANTED = (1000, 8000)


def phantom() -> tuple[torch.Tensor, torch.Tensor]:
    """Four tissues with curved borders and noise, float32, and an ellipsoid as mask; on the CPU."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((1, 4, *(s // 8 for s in SPACE)), generator=generator)
    tissue = interpolate(coarse, size=SPACE, mode="trilinear")[0].argmax(0)
    image = torch.tensor([0.1, 0.4, 0.65, 0.9])[tissue] + 0.05 * torch.randn(SPACE, generator=generator)
    places = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SPACE), indexing="ij")
    return image, torch.stack(places).square().sum(0) < 0.8


def _on_gpu(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).cuda()


def slic_correct() -> Facts:
    """The labels of the CPU, on every case of the emulation and on volumes; ten times the same beside other work."""
    for case in slic_cases.CASES.values():
        slic_cases.check(slic_cupy, case, _on_gpu)
    image, mask = phantom()
    for dtype, options in (
        (torch.float32, {"n_segments": 8000}),
        (torch.float32, {"n_segments": 3000, "mask": mask, "spacing": (1, 1, 2.5)}),
        (torch.int16, {"n_segments": 500, "compactness": 0.02}),
    ):
        typed = image if dtype.is_floating_point else image.mul(900).to(dtype)
        found = slic(typed.cuda(), **options)
        assert found.is_cuda
        np.testing.assert_array_equal(found.cpu(), slic(typed, **options))
    noise, side = torch.randn(1 << 24, device="cuda"), torch.cuda.Stream()
    first = slic(image.cuda(), 2000)
    for _ in range(10):
        with torch.cuda.stream(side):
            noise.sin_()
        assert torch.equal(slic(image.cuda(), 2000), first)
    return {"cases": len(slic_cases.CASES), "K": int(first.max()) + 1}


def slic_small() -> Facts:
    """A few launches of every kernel, for compute-sanitizer."""
    for case in slic_cases.SMALL.values():
        slic_cases.check(slic_cupy, case, _on_gpu)
    return {}


def _wall(work: Callable[[], object], repeats: int = 15) -> float:
    """Median milliseconds of a call, the wait for the device included."""
    times = []
    for i in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def slic_timing() -> Facts:
    """Milliseconds for 160 x 192 x 160 and 10 assignments, in all and part by part, without and with a mask."""
    image, mask = (t.cuda() for t in phantom())
    rows = []
    for wanted in WANTED:
        for inside in (None, mask):
            found = slic(image, wanted, mask=inside)
            row: Facts = {"K": int(found.max()) + 1, "masked": inside is not None}
            row["ms"] = _wall(functools.partial(slic, image, wanted, mask=inside))
            everywhere = torch.ones_like(mask) if inside is None else inside
            row["scale"] = _wall(functools.partial(slic_cupy.scale, image, everywhere))
            filled = occupancy(everywhere, slic_cupy.cell_counter)
            row["occupancy"] = _wall(functools.partial(occupancy, everywhere, slic_cupy.cell_counter))
            row["fit grid"] = _wall(functools.partial(fit_grid, filled, (1.0, 1.0, 1.0), wanted))
            cells = fit_grid(filled, (1.0, 1.0, 1.0), wanted)
            edges = tuple(cell_edges(n, c) for n, c in zip(SPACE, cells, strict=True))
            step = (np.prod(SPACE) / np.prod(cells)) ** (1 / 3)
            weights = np.array([(0.1 / step) ** 2] * 3 + [1.0])
            features = slic_cupy.scale(image, everywhere)[None]
            assign = functools.partial(slic_cupy.assign, features, everywhere, edges, weights, 10)
            row["assign"] = _wall(assign)
            assigned = assign()
            size = float(everywhere.sum()) / wanted / 4
            row["roots"] = _wall(functools.partial(slic_cupy._roots, assigned, 1))
            row["connect"] = _wall(functools.partial(slic_cupy.connect, assigned, features, size, 2 * wanted))
            rows.append({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
    return {"parts": rows}


STEPS: dict[str, Callable[[], Facts]] = {step.__name__: step for step in (slic_correct, slic_small, slic_timing)}
