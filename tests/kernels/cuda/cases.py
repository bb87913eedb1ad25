"""Cases of the CUDA kernels, judged by the ndimage reference; the tests and `sanitized.py` run them."""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from voxpool.kernels import layout, pool_ndimage

Draw = Callable[[tuple[int, ...], int, torch.Generator], Tensor]


class Case(NamedTuple):
    """Segments of a space: how many, how drawn, and how many channels and samples go with them."""

    space: tuple[int, ...]
    num_segments: int
    draw: Draw
    channels: int = 3
    samples: int = 2

    @property
    def size(self) -> int:
        return torch.Size(self.space).numel()


def scattered(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    """Any id anywhere, -1 too; id 3 never, and the second sample uses the lower half only."""
    ids = torch.randint(-1, num_segments, shape, generator=generator)
    ids[1:] = ids[1:].clamp(max=num_segments // 2)
    return torch.where(ids == 3, 4, ids)


def in_runs(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    return scattered(shape, num_segments, generator).sort(-1).values


def wrong(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    """Among the ids are some that no segment has."""
    ids = torch.randint(-3, num_segments + 3, shape, generator=generator)
    ids[:, ::7], ids[:, 1::7] = 2**31 - 1, -(2**31)
    return ids


def one_each(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    return torch.stack([torch.randperm(shape[1], generator=generator) for _ in range(shape[0])])


def none(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    return torch.full(shape, -1)


def one(shape: tuple[int, ...], num_segments: int, generator: torch.Generator) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


CASES = {
    "1D": Case((2500,), 9, in_runs),
    "2D, ragged tiles": Case((37, 70), 11, scattered, channels=5),
    "2D, width a multiple of 4": Case((20, 68), 11, in_runs, channels=8),
    "3D, ragged tiles": Case((9, 17, 39), 20, scattered),
    "3D, 33 channels": Case((5, 4, 33), 6, scattered, channels=33),
    "4D": Case((2, 3, 9, 5), 7, scattered, channels=1),
    "one voxel per segment": Case((6, 7, 8), 336, one_each, channels=2),
    "big segments, joined in two steps": Case((8 * 70, 1, 1), 8, in_runs, channels=2),
    "everything ignored": Case((5, 6, 7), 4, none),
    "ids of no segment": Case((10, 60), 6, wrong, channels=4),
    "no segments": Case((4, 5), 0, none),
    "no voxels": Case((0, 5), 3, none),
    "no channels": Case((4, 5), 4, none, channels=0),
}

SMALL = {
    "scattered": Case((4, 6, 8), 5, scattered, channels=2, samples=1),
    "joined in two steps": Case((8 * 5, 1, 1), 2, one, channels=1, samples=1),
}


def draw_values(case: Case, dtype: torch.dtype, segments: Tensor, generator: torch.Generator) -> Tensor:
    """Multiples of 1/2 with many ties, so that all sums are exact; the last channel is full of special values.

    Values in float64 have bits that float32 would lose.
    """
    shape = (case.samples, case.channels, case.size)
    x = torch.randint(-4, 5, shape, generator=generator).double() / 2
    if dtype == torch.float64:
        x += torch.randint(0, 2, shape, generator=generator) * 2.0**-40
    if case.channels > 1:
        special = x[:, -1]
        special[torch.rand(special.shape, generator=generator) < 0.01] = torch.nan
        special[torch.rand(special.shape, generator=generator) < 0.01] = -torch.nan
        special[torch.rand(special.shape, generator=generator) < 0.01] = torch.inf
        zeros = torch.rand(special.shape, generator=generator) < 0.5
        x[:, 0] = torch.where(zeros, -0.0, x[:, 0].clamp(max=0))
        special[segments == 0] = -torch.inf
    return x.to(dtype)


def _same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    if actual.is_floating_point():
        assert torch.equal(actual.signbit() & (actual == 0), expected.signbit() & (expected == 0))


def run(kernels: ModuleType, case: Case, dtype: torch.dtype, *, channels_last: bool, planned: bool) -> list[Tensor]:
    """Run every kernel once, compare with the reference, and return what came out."""
    generator = torch.Generator().manual_seed(0)
    ids = case.draw((case.samples, case.size), case.num_segments, generator).to(torch.int32)
    x = layout.arrange(draw_values(case, dtype, ids, generator), channels_last=channels_last)
    k, plan = case.num_segments, kernels.plan(ids, case.num_segments, case.space) if planned else []
    right = torch.where((ids >= 0) & (ids < k), ids, -1)

    maxima, argmax = kernels.segment_max(x, ids, k, plan)
    expected = pool_ndimage.segment_max(x, right, k, [])
    _same(maxima, expected[0])
    _same(argmax, expected[1])

    sums = kernels.segment_sum(x, ids, k, plan)
    assert sums.is_contiguous()
    assert maxima.is_contiguous()
    means, counts = kernels.segment_mean(x, ids, k, plan)
    # the sign of a zero sum is nobody's affair
    _same(sums + 0, pool_ndimage.segment_sum(x, right, k, []) + 0)
    expected = pool_ndimage.segment_mean(x, right, k, [])
    _same(means + 0, expected[0] + 0)
    _same(counts, expected[1])

    results = [maxima, argmax, sums, means, counts]
    pooled = torch.randint(-8, 9, (case.samples, case.channels, k), generator=generator).to(dtype)
    other = layout.arrange(x, channels_last=not channels_last)
    for base in (None, x, other):
        out = kernels.unpool(pooled, ids, base, channels_last)
        assert (out.transpose(1, 2) if channels_last else out).is_contiguous()
        _same(out + 0, pool_ndimage.unpool(pooled, right, base, channels_last) + 0)
        results.append(out)
    spread = kernels.scatter(pooled, argmax, case.size, channels_last)
    assert (spread.transpose(1, 2) if channels_last else spread).is_contiguous()
    _same(spread, pool_ndimage.scatter(pooled, argmax, case.size, channels_last))
    return [*results, spread]


def bits(tensor: Tensor) -> Tensor:
    """The tensor as integers of its size."""
    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(sizes[tensor.element_size()])
