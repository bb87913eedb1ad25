"""Cases of the CUDA kernels that pad blocks, judged by the torch path; the tests and `sanitized.py` run them."""

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from voxpool.kernels import block_pad_cupy, block_pad_torch

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NAMES = [name for dtype in DTYPES for name in block_pad_cupy.kernel_names(dtype)]


class Case(NamedTuple):
    """A grid of blocks, their sides, the padding and the share of blocks of full resolution."""

    grid: tuple[int, ...]
    side: tuple[int, ...]
    pad: tuple[int, ...]
    share: float = 0.5
    replicate: bool = False
    channels: int = 3


CASES = {
    "2D": Case((2, 3, 4), (6, 8), (1, 1)),
    "2D, replicated": Case((2, 3, 4), (6, 8), (1, 1), replicate=True),
    "2D, wide padding": Case((1, 4, 3), (8, 4), (3, 2), replicate=True),
    "2D, one axis": Case((1, 3, 3), (8, 8), (0, 2)),
    "2D, all high": Case((1, 2, 3), (4, 4), (1, 1), share=1.1),
    "2D, all low": Case((1, 2, 3), (4, 4), (1, 1), share=-1),
    "3D": Case((1, 3, 2, 3), (4, 4, 6), (1, 1, 1)),
    "3D, replicated": Case((2, 2, 2, 2), (4, 6, 4), (2, 1, 2), replicate=True, channels=1),
    "no padding": Case((1, 2, 2), (4, 4), (0, 0)),
    "one block": Case((1, 1, 1), (4, 6), (2, 2), share=1.1, replicate=True),
}
SMALL = {name: CASES[name] for name in ("2D, replicated", "3D")}


def check(kernels: ModuleType, case: Case, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Pad and go back with both, compare, and return what came out."""
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(case.grid, generator=generator) < case.share
    flat = high.reshape(-1)
    index = torch.where(flat, flat.cumsum(0) - 1, -(~flat).cumsum(0)).to(torch.int32).view(case.grid)

    def draw(count: int, sides: tuple[int, ...]) -> Tensor:
        # multiples of 1/8: sums and means of them are exact in every dtype
        shape = (count, *sides, case.channels)
        return (torch.randint(-8, 9, shape, generator=generator) / 8 * 8).to(dtype)

    counts = int(flat.sum()), int((~flat).sum())
    half = tuple(s // 2 for s in case.side)
    blocks = draw(counts[0], case.side), draw(counts[1], half)
    padding = block_pad_torch.Padding(case.side, case.pad, case.replicate)
    plan = block_pad_torch.make_plan(index, padding)
    there = [each.to(device) for each in blocks]
    places = kernels.Places.of(index.to(device))
    found = kernels.pad_blocks(*there, places, padding, -7.0)
    expected = block_pad_torch.pad_blocks(*(each.double() for each in blocks), padding, -7.0, plan)
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual.cpu().double(), wanted, rtol=0, atol=0)

    grads = [draw(len(each), tuple(each.shape[1:-1])) for each in found]
    back = kernels.pad_blocks_backward(*(each.to(device) for each in grads), places, padding)
    expected = block_pad_torch.pad_blocks_backward(*(each.double() for each in grads), padding, plan)
    # sums of many parts are rounded once, to the dtype
    loose = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 0)
    for actual, wanted in zip(back, expected, strict=True):
        torch.testing.assert_close(actual.cpu().double(), wanted, rtol=loose, atol=0)
    return [*found, *back]
