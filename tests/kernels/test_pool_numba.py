"""What is special to the compiled CPU kernels: half precision by bits, and threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from voxpool.kernels import layout, pool_ndimage, pool_numba, unit_numba
from voxpool.kernels.registry import FLOAT_DTYPES

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
    maxima, argmax = pool_numba.segment_max(x, segments, num_segments, [])
    return [
        maxima,
        argmax,
        *pool_numba.segment_mean(x, segments, num_segments, []),
        pool_numba.segment_sum(x, segments, num_segments, []),
        pool_numba.unpool(maxima, segments, None, False),
        pool_numba.unpool(maxima, segments, x, False),
        pool_numba.scatter(maxima, argmax, x.shape[2], False),
    ]


def bits(t: Tensor) -> Tensor:
    return t.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.itemsize])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_all_65536_half_precision_values_are_exact(dtype: torch.dtype) -> None:
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, 1, -1)
    own_segment = torch.arange(65536, dtype=torch.int32).reshape(1, -1)
    maxima, argmax = pool_numba.segment_max(x, own_segment, 65536, [])
    assert torch.equal(argmax[0, 0], own_segment[0].long())
    # a NaN stays one, though a signalling one comes out quiet, as from any arithmetic
    assert torch.equal(maxima.isnan(), x.isnan())
    assert torch.equal(bits(maxima)[~x.isnan()], bits(x)[~x.isnan()])
    sums = pool_numba.segment_sum(x, own_segment, 65536, [])
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
    maxima, argmax = pool_numba.segment_max(pairs, segments, 20_000, [])
    assert torch.equal(maxima[0, 0].double(), torch.maximum(left.double(), right.double()))
    assert torch.equal(argmax[0, 0] >= 20_000, right.double() > left.double())


def test_equal_bits_for_any_number_of_threads(threads: int) -> None:
    x, segments, num_segments = large_case()
    rows = [
        everything(x[n : n + 1, c : c + 1].contiguous(), segments[n : n + 1], num_segments)
        for n, c in np.ndindex(*LARGE[:2])
    ]
    for _ in range(20 // threads):
        maxima, argmax, means, counts, *others = everything(x, segments, num_segments)
        assert torch.equal(counts, torch.stack([torch.bincount(ids[ids >= 0], minlength=300) for ids in segments]))
        alone = [[row[i] for row in rows] for i in (0, 1, 2, 4, 5, 6, 7)]
        for whole, parts in zip((maxima, argmax, means, *others), alone, strict=True):
            assert torch.equal(bits(whole).flatten(0, 1), bits(torch.cat(parts).squeeze(1)))


def test_several_threads_may_pool_at_the_same_time() -> None:
    x, segments, num_segments = large_case()
    expected = everything(x, segments, num_segments)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: everything(x, segments, num_segments), range(8)):
            assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_f11_rows_that_start_beyond_two_to_the_31_elements_are_read_and_written(tmp_path: Path) -> None:
    """A sparse file stands for the memory; only its last channels are touched."""
    channels, size = 4097, 1 << 19
    assert (channels - 1) * size >= 2**31
    voxels = np.asarray(np.memmap(tmp_path / "voxels", dtype=np.uint16, mode="w+", shape=(channels, size)))
    voxels[-1, [3, size - 1]] = 0x3F80, 0x4000  # 1 and 2 in bfloat16
    ids, lanes = np.zeros(size, np.int32), (0,)
    best, where, totals = np.zeros((1, 2, 1), np.float32), np.zeros((1, 2, 1), np.int32), np.zeros((1, 2, 1))
    # a view that reaches back over all channels: its second one starts beyond 2^31
    ends = voxels[None, :: channels - 1]
    assert ends.strides[1] == 2 * (channels - 1) * size
    best, where, totals = (np.repeat(a, 4, axis=2) for a in (best, where, totals))
    lanes = (0, 0, 0, 0)
    unit_numba.fill_maxima(ends, ids, 0, best, where, lanes)
    assert best[0, 1].tolist() == [0, 2, 2, 2]
    assert where[0, 1].tolist() == [0, size - 1, size - 1, size - 1]
    unit_numba.fill_totals(ends, ids, 0, totals, lanes)
    assert totals[0, 1].tolist() == [0, 3, 3, 3]
    unit_numba.write_voxels(best[:, :, 1:2].copy(), ids, 0, None, voxels[None, -1:], (0,))
    assert (voxels[-1] == 0x4000).all()
    assert not voxels[[0, -2]].any()


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


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 8, 16, 19, 33])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_every_width_and_tail_is_the_reference(channels: int, dtype: torch.dtype, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(channels)
    for size, num_segments in ((1, 1), (15, 3), (16, 4), (37, 60), (1000, 50)):
        x = torch.randint(-8, 9, (2, channels, size), generator=generator).to(dtype) / 4
        x[torch.rand(x.shape, generator=generator) < 0.02] = torch.nan
        x[torch.rand(x.shape, generator=generator) < 0.1] = -torch.inf
        x = layout.arrange(x, channels_last=channels_last)
        segments = torch.randint(-1, num_segments, (2, size), generator=generator, dtype=torch.int32)
        maxima, argmax = pool_numba.segment_max(x, segments, num_segments, [])
        expected, where = pool_ndimage.segment_max(x, segments, num_segments, [])
        assert torch.equal(argmax, where)
        assert torch.equal(maxima.isnan(), expected.isnan())
        assert torch.equal(maxima.nan_to_num(9), expected.nan_to_num(9))
        # multiples of 1/4: sums are exact in float64, so both sides round once
        for ours, reference in zip(
            pool_numba.segment_mean(x, segments, num_segments, []),
            pool_ndimage.segment_mean(x, segments, num_segments, []),
            strict=True,
        ):
            torch.testing.assert_close(ours, reference, rtol=0, atol=0, equal_nan=True)
        for base in (None, x):
            out = pool_numba.unpool(maxima, segments, base, channels_last)
            assert layout.is_channels_last(out) == layout.is_channels_last(x)
            reference = pool_ndimage.unpool(maxima, segments, base, channels_last)
            torch.testing.assert_close(out, reference, rtol=0, atol=0, equal_nan=True)
        spread = pool_numba.scatter(maxima, argmax, size, channels_last)
        reference = pool_ndimage.scatter(maxima, argmax, size, channels_last)
        torch.testing.assert_close(spread, reference, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("channels", [1, 4, 20])
@pytest.mark.parametrize("num_segments", [2000, 30_000])
def test_parts_that_know_their_segments_are_joined_to_the_whole(channels: int, num_segments: int) -> None:
    """Ids that rise with the place, as SLIC's do, so that each part has a range of them; one part has none at all."""
    size = 300_000
    generator = torch.Generator().manual_seed(0)
    rising = torch.arange(size) * num_segments // size
    ragged = rising + torch.randint(0, 40, (size,), generator=generator)
    segments = torch.stack([ragged.clamp(max=num_segments - 1), rising]).int()
    segments[:, torch.rand(size, generator=generator) < 0.2] = -1
    segments[0, :80_000] = -1
    x = torch.randint(-99, 99, (2, channels, size), generator=generator) / 8
    maxima, argmax = pool_numba.segment_max(x, segments, num_segments, [])
    expected, where = pool_ndimage.segment_max(x, segments, num_segments, [])
    assert torch.equal(maxima, expected)
    assert torch.equal(argmax, where)
    sums = pool_numba.segment_sum(x, segments, num_segments, [])
    assert torch.equal(sums, pool_ndimage.segment_sum(x, segments, num_segments, []))
    unpooled = pool_numba.unpool(maxima, segments, x, False)
    assert torch.equal(unpooled, pool_ndimage.unpool(maxima, segments, x, False))


def test_one_compiled_form_serves_every_order_in_memory() -> None:
    compiled = (unit_numba.fill_maxima, unit_numba.fill_totals, unit_numba.write_voxels)
    x = torch.randn(2, 12, 40, generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(40, dtype=torch.int32) % 5).repeat(2, 1)
    everything(x[:, :8].contiguous(), segments, 5)
    forms = [len(function.signatures) for function in compiled]
    for other in (x[:, :8], layout.arrange(x[:, :8], channels_last=True)):
        everything(other, segments, 5)
    assert [len(function.signatures) for function in compiled] == forms
