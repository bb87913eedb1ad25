"""The steps of `gpu_check.py` for blocks of two resolutions."""

import statistics
from collections.abc import Callable
from typing import Any

import block_cases
import torch

from voxpool.kernels import block_pad_cupy
from voxpool.ops.block_pad import BlockGrid, block_pad, block_sample

Facts = dict[str, Any]


def blocks() -> Facts:
    """What the torch path gives, on every case of the emulation and in every dtype; and how fast a map is padded."""
    for dtype in block_cases.DTYPES:
        for case in block_cases.CASES.values():
            first = block_cases.check(block_pad_cupy, case, dtype, "cuda")
            again = block_cases.check(block_pad_cupy, case, dtype, "cuda")
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    x = torch.randn((1, 64, 256, 512), device="cuda")
    grid = BlockGrid((torch.arange(128, device="cuda").view(1, 8, 16) % 2) == 0)
    high, low = block_sample(x, grid)
    block_pad(high, low, grid, (1, 1))
    milliseconds = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        block_pad(high, low, grid, (1, 1))
        end.record()
        end.synchronize()
        milliseconds.append(start.elapsed_time(end))
    moved = 2 * 4 * (high.numel() + low.numel())
    seconds = statistics.median(milliseconds) / 1000
    return {"cases": len(block_cases.CASES), "ms": 1000 * seconds, "gb_per_s": moved / seconds / 1e9}


STEPS: dict[str, Callable[[], Facts]] = {"blocks": blocks}
