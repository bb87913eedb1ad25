"""What is special to the compiled CPU kernels: half precision by bits, and threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from voxpool.kernels import pool_numba

LARGE = (2, 9, 40_000)  # enough voxels to be worth several threads


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(request.param)
    numba.set_num_threads(min(request.param, numba.config.NUMBA_NUM_THREADS))
    yield request.param
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


def large_case() -> tuple[Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(LARGE, generator=generator).round(decimals=1)
    segments = torch.randint(-1, 300, (LARGE[0], LARGE[2]), generator=generator, dtype=torch.int32)
    return x, segments, 300


def everything(x: Tensor, segments: Tensor, num_segments: int) -> list[Tensor]:
    maxima = pool_numba.segment_max(x, segments, num_segments)
    means = pool_numba.segment_mean(x, segments, num_segments)
    return [
        *maxima,
        *means,
        pool_numba.segment_sum(x, segments, num_segments),
        pool_numba.unpool(maxima[0], segments),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_65536_half_precision_values_are_exact(dtype: torch.dtype) -> None:
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, 1, -1)
    own_segment = torch.arange(65536, dtype=torch.int32).reshape(1, -1)
    maxima, argmax = pool_numba.segment_max(x, own_segment, 65536)
    assert torch.equal(argmax[0, 0], own_segment[0].long())
    assert torch.equal(maxima.view(torch.int16), x.view(torch.int16))
    sums = pool_numba.segment_sum(x, own_segment, 65536)
    torch.testing.assert_close(sums, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_ordered_by_value(dtype: torch.dtype) -> None:
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    values = values[~values.isnan()]
    generator = torch.Generator().manual_seed(0)
    left = values[torch.randint(len(values), (20_000,), generator=generator)]
    right = values[torch.randint(len(values), (20_000,), generator=generator)]
    pairs = torch.cat([left, right]).reshape(1, 1, -1)
    segments = torch.arange(20_000, dtype=torch.int32).repeat(2).reshape(1, -1)
    maxima, argmax = pool_numba.segment_max(pairs, segments, 20_000)
    assert torch.equal(maxima[0, 0].double(), torch.maximum(left.double(), right.double()))
    assert torch.equal(argmax[0, 0] >= 20_000, right.double() > left.double())


def test_equal_bits_for_any_number_of_threads(threads: int) -> None:
    x, segments, num_segments = large_case()
    rows = [
        everything(x[n : n + 1, c : c + 1].contiguous(), segments[n : n + 1], num_segments)
        for n, c in np.ndindex(*LARGE[:2])
    ]
    for _ in range(20 // threads):
        maxima, argmax, means, counts, sums, unpooled = everything(x, segments, num_segments)
        for whole, part in ((maxima, 0), (argmax, 1), (means, 2), (sums, 4), (unpooled, 5)):
            assert torch.equal(whole.flatten(0, 1), torch.cat([row[part] for row in rows]).squeeze(1))
        assert torch.equal(counts, torch.stack([torch.bincount(ids[ids >= 0], minlength=300) for ids in segments]))


def test_several_threads_may_pool_at_the_same_time() -> None:
    x, segments, num_segments = large_case()
    expected = everything(x, segments, num_segments)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: everything(x, segments, num_segments), range(8)):
            assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_f11_rows_that_start_beyond_two_to_the_31_elements_are_read_and_written(tmp_path: Path) -> None:
    """A sparse file stands for the memory; only its last row is touched."""
    rows, size = 4097, 1 << 19
    assert (rows - 1) * size >= 2**31
    voxels = np.asarray(np.memmap(tmp_path / "voxels", dtype=np.uint16, mode="w+", shape=(1, rows, size)))
    voxels[0, -1, [3, size - 1]] = 0x3F80, 0x4000  # 1 and 2 in bfloat16
    segments = np.zeros((1, size), np.int32)
    last_row = (rows - 1, rows)
    maxima, argmax = np.zeros((1, rows, 1), np.uint16), np.zeros((1, rows, 1), np.int64)
    pool_numba._max(last_row, voxels, segments, np.zeros((rows, 1), np.float32), maxima, argmax)
    assert (maxima[0, -1, 0], argmax[0, -1, 0]) == (0x4000, size - 1)
    totals = np.zeros((1, rows, 1))
    pool_numba._sum(last_row, voxels, segments, totals)
    assert totals[0, -1, 0] == 3
    pool_numba._unpool(last_row, maxima, segments, voxels)
    assert (voxels[0, -1] == 0x4000).all()
    assert not voxels[0, [0, -2]].any()


class PooledSamples(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        return torch.cat([t.double().flatten() for t in everything(*large_case())])


def test_pooling_works_in_a_forked_data_loader_after_it_ran_in_the_parent() -> None:
    expected = PooledSamples()[0]
    loader = torch.utils.data.DataLoader(
        PooledSamples(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=120
    )
    for sample in loader:
        assert torch.equal(sample, expected)
