"""The faults F1-F16 of earlier superpixel pooling code, each kept out by a test of its own."""

import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from voxpool.errors import UsageError
from voxpool.kernels import pool_torch
from voxpool.kernels.registry import BACKENDS
from voxpool.ops import segment_pool, segment_unpool
from voxpool.ops.custom_ops import _narrow

REDUCES = ["max", "mean", "sum"]
CPU_BACKENDS = [name for name, backend in BACKENDS.items() if backend.refusal("cpu", torch.float32) is None]

each_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)
each_fast_backend = pytest.mark.parametrize("backend", ["numba", "torch"])
each_reduce = pytest.mark.parametrize("reduce", REDUCES)


def gradient(x: Tensor, segments: Tensor, num_segments: int, weights: Tensor, **options: str) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad((segment_pool(x, segments, num_segments, **options) * weights).sum(), x)[0]


@each_backend
@each_reduce
def test_f01_every_sample_of_a_batch_gets_its_gradient(reduce: str, backend: str) -> None:
    torch.manual_seed(0)
    x, segments = torch.randn(4, 16, 6, 7), torch.randint(-1, 20, (4, 6, 7))
    weights = torch.randn(4, 16, 20)
    stacked = gradient(x, segments, 20, weights, reduce=reduce, backend=backend)
    for n in range(4):
        single = slice(n, n + 1)
        alone = gradient(x[single], segments[single], 20, weights[single], reduce=reduce, backend=backend)
        assert alone.abs().sum() > 0
        assert torch.equal(stacked[single], alone)


class MeanPool(torch.nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        return segment_pool(x, segments, 2, reduce="mean", backend=self.backend)


@each_backend
@pytest.mark.parametrize("training", [True, False])
def test_f02_mean_gradient_is_divided_by_the_count_in_training_and_evaluation(training: bool, backend: str) -> None:
    x = torch.zeros(1, 1, 5, requires_grad=True)
    pool = MeanPool(backend).train(training)
    pooled = pool(x, torch.tensor([[0, 1, 1, 1, 1]]))
    (grad,) = torch.autograd.grad((pooled * torch.tensor([3.0, 8.0])).sum(), x)
    assert grad.flatten().tolist() == [3, 2, 2, 2, 2]


@each_backend
@each_reduce
def test_f03_empty_segments_give_zero_and_send_no_gradient(reduce: str, backend: str) -> None:
    x = torch.tensor([[[-5.0, -1.0, -2.0]]])
    segments = torch.tensor([[3, -1, 3]])
    pooled = segment_pool(x, segments, 6, reduce=reduce, backend=backend)
    assert pooled[0, 0, [0, 1, 2, 4, 5]].tolist() == [0] * 5
    weights = torch.tensor([100.0, 100, 100, 0, 100, 100])
    assert gradient(x, segments, 6, weights, reduce=reduce, backend=backend).flatten().tolist() == [0, 0, 0]


@each_backend
def test_f04_nan_wins_wherever_it_stands(backend: str) -> None:
    orders = list(permutations([1.0, float("nan"), 3.0, 2.0]))
    x = torch.tensor(orders).reshape(1, len(orders), 4)
    maxima, argmax = segment_pool(x, torch.zeros(1, 4, dtype=torch.int32), 1, return_argmax=True, backend=backend)
    assert maxima.isnan().all()
    assert torch.equal(argmax, x.isnan().long().argmax(dim=2, keepdim=True))


@each_backend
def test_f05_ties_go_to_the_lowest_index_every_time(backend: str) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 2, (2, 3, 400)).float()
    segments = torch.randint(0, 9, (2, 400))
    lowest = torch.zeros_like(x)
    for n, c, k in np.ndindex(2, 3, 9):
        lowest[n, c, int(((segments[n] == k) & (x[n, c] == 1)).nonzero()[0])] = 1
    for _ in range(100 if backend != "ndimage" else 3):
        assert torch.equal(gradient(x, segments, 9, torch.ones(2, 3, 9), backend=backend), lowest)


@each_backend
def test_f06_the_mean_of_a_giant_segment_is_right_to_1e_6(backend: str) -> None:
    size = 1 << 23
    x = torch.full((1, 1, 256, 128, 256), 0.1)
    segments = torch.zeros(1, 256, 128, 256, dtype=torch.int32)
    mean = segment_pool(x, segments, 1, reduce="mean", backend=backend).item()
    total = segment_pool(x, segments, 1, reduce="sum", backend=backend).item()
    assert mean == pytest.approx(0.1, rel=1e-6)
    assert total == pytest.approx(0.1 * size, rel=1e-6)


@each_fast_backend
def test_f07_positions_beyond_float32_integers_are_exact(backend: str) -> None:
    position = (1 << 24) + 1  # float32 knows 2**24 and 2**24 + 2 only
    x = torch.zeros(1, 1, position + 2, dtype=torch.bfloat16)
    x[..., position] = 1
    segments = torch.zeros(1, position + 2, dtype=torch.int32)
    _, argmax = segment_pool(x, segments, 1, return_argmax=True, backend=backend)
    assert argmax.dtype == torch.int64
    assert argmax.item() == position


@each_fast_backend
@each_reduce
@pytest.mark.parametrize("channels", [1, 4, 65])
def test_f08_splitting_the_work_changes_nothing(channels: int, reduce: str, backend: str) -> None:
    """The speed itself is a benchmark's matter; here: no part of the work is lost or done twice."""
    torch.manual_seed(0)
    x, segments = torch.randn(2, channels, 33, 64), torch.randint(-1, 50, (2, 33, 64), dtype=torch.int32)
    pooled = segment_pool(x, segments, 50, reduce=reduce, backend=backend)
    for n, c in np.ndindex(2, channels):
        alone = segment_pool(x[n : n + 1, c : c + 1], segments[n : n + 1], 50, reduce=reduce, backend=backend)
        assert torch.equal(pooled[n, c], alone[0, 0])


@each_reduce
def test_f09_num_segments_is_never_read_from_the_ids(reduce: str) -> None:
    with FakeTensorMode():
        x = torch.empty(2, 3, 4, 5, 6, requires_grad=True)
        segments = torch.empty(2, 4, 5, 6, dtype=torch.int32)
        pooled = segment_pool(x, segments, 1000, reduce=reduce)
        out = segment_unpool(pooled, segments, x)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert pooled.shape == (2, 3, 1000)
        assert out.shape == grad.shape == x.shape
    with pytest.raises(UsageError, match="num_segments must be a Python int, got Tensor"):
        segment_pool(torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.int32), torch.tensor(3))


def test_f09_the_torch_kernels_read_no_value_back_to_the_host() -> None:
    x = torch.empty(2, 3, 50, device="meta")  # reading a value of a meta tensor raises
    segments = torch.empty(2, 50, dtype=torch.int32, device="meta")
    assert [t.shape for t in pool_torch.segment_max(x, segments, 7, [])] == [(2, 3, 7), (2, 3, 7)]
    assert [t.shape for t in pool_torch.segment_mean(x, segments, 7, [])] == [(2, 3, 7), (2, 7)]
    assert pool_torch.segment_sum(x, segments, 7, []).shape == (2, 3, 7)
    assert pool_torch.unpool(x, segments, None, False).shape == (2, 3, 50)


@each_backend
@each_reduce
def test_f10_every_float_dtype_pools_to_itself_and_integers_are_refused(reduce: str, backend: str) -> None:
    segments = torch.tensor([[0, 0, 1]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.tensor([[[-1.5, -0.5, 3.0]]], dtype=dtype)
        pooled = segment_pool(x, segments, 2, reduce=reduce, backend=backend)
        assert pooled.dtype == dtype
        assert pooled.flatten().tolist() == {"max": [-0.5, 3], "mean": [-1, 3], "sum": [-2, 3]}[reduce]
        assert gradient(x, segments, 2, torch.ones(2, dtype=dtype), reduce=reduce, backend=backend).dtype == dtype
    for dtype in (torch.int32, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(UsageError, match=f"x must be one of .*, got {dtype}"):
            segment_pool(torch.zeros(1, 1, 3, dtype=dtype), segments, 2, reduce=reduce, backend=backend)


def test_f11_positions_and_shapes_beyond_two_to_the_31() -> None:
    size = 2**31 + 10
    with FakeTensorMode():
        x = torch.empty(4, 64, 256, 128, 256, dtype=torch.bfloat16, requires_grad=True)
        segments = torch.empty(4, 256, 128, 256, dtype=torch.int32)
        assert x.numel() >= 2**31
        pooled = segment_pool(x, segments, 5)
        assert torch.autograd.grad(pooled.sum(), x)[0].shape == x.shape
        row, ids = torch.empty(1, 1, size), torch.empty(1, size, dtype=torch.int32)
        assert pool_torch.segment_max(row, ids, 5, [])[1].dtype == torch.int64
    for largest, dtype in ((2**31 - 1, torch.int32), (2**31, torch.int64)):
        assert pool_torch._position_dtype(largest) == dtype
        assert largest <= torch.iinfo(dtype).max


@each_backend
@pytest.mark.parametrize("wrong", [-2, 3, 2**31 + 1, 2**32, -(2**32)])
def test_f12_wrong_ids_are_refused(wrong: int, backend: str) -> None:
    segments = torch.tensor([[0, 1, wrong, 2]])
    low, high = min(wrong, 0), max(wrong, 2)
    message = rf"segments must hold ids from -1 \(ignored\) to num_segments - 1 = 2, got ids from {low} to {high}"
    for reduce in REDUCES:
        with pytest.raises(UsageError, match=message):
            segment_pool(torch.zeros(1, 1, 4), segments, 3, reduce=reduce, backend=backend)
    with pytest.raises(UsageError, match=message):
        segment_unpool(torch.zeros(1, 1, 3), segments, backend=backend)


def test_f12_unchecked_ids_cannot_reach_another_segment() -> None:
    """What CUDA relies on, where checking would wait for the device."""
    wide = torch.tensor([2**32, -(2**32), 2**31, 5, 4, 0, -1, -2])
    assert _narrow(wide, 5).tolist() == [5, -1, 5, 5, 4, 0, -1, -1]
    torch.manual_seed(0)
    x = torch.randn(2, 3, 40)
    segments = torch.randint(-1, 5, (2, 40), dtype=torch.int32)
    wrong = torch.rand(2, 40) < 0.3
    ignored = segments.masked_fill(wrong, -1)
    for bad_id in (-7, 5, 6, 2**31 - 1):
        bad = segments.masked_fill(wrong, bad_id)
        for kernel in (pool_torch.segment_max, pool_torch.segment_mean):
            for actual, expected in zip(kernel(x, bad, 5, []), kernel(x, ignored, 5, []), strict=True):
                assert torch.equal(actual, expected)
        assert torch.equal(pool_torch.segment_sum(x, bad, 5, []), pool_torch.segment_sum(x, ignored, 5, []))
        pooled = torch.randn(2, 3, 5)
        unpooled = [pool_torch.unpool(pooled, ids, None, False) for ids in (bad, ignored)]
        assert torch.equal(*unpooled)


@each_backend
@pytest.mark.parametrize("size", [1, 2, 7, 31, 33, 1023, 1025])
def test_f13_voxel_0_counts_and_sizes_need_not_be_powers_of_two(size: int, backend: str) -> None:
    x = torch.arange(size, 0, -1).float().reshape(1, 1, size)
    segments = torch.zeros(1, size, dtype=torch.int32)
    maxima, argmax = segment_pool(x, segments, 1, return_argmax=True, backend=backend)
    assert (maxima.item(), argmax.item()) == (size, 0)
    assert segment_pool(x, segments, 1, reduce="sum", backend=backend).item() == size * (size + 1) / 2


@each_backend
def test_f14_a_giant_segment_beside_small_ones(backend: str) -> None:
    torch.manual_seed(0)
    segments = torch.zeros(1, 24, 24, 24, dtype=torch.int32)
    segments[:, 8:16, 8:16, 8:16] = torch.arange(1, 513, dtype=torch.int32).reshape(8, 8, 8)
    x = torch.randn(1, 3, 24, 24, 24)
    maxima, argmax = segment_pool(x, segments, 513, return_argmax=True, backend=backend)
    outside = x.masked_fill((segments > 0).unsqueeze(1), -torch.inf).flatten(2)
    assert torch.equal(argmax[..., 0], outside.argmax(dim=2))
    assert torch.equal(maxima[..., 1:], x[:, :, 8:16, 8:16, 8:16].flatten(2))


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values in other memory orders."""
    spaced = torch.zeros(*x.shape[:-1], x.shape[-1] * 2, dtype=x.dtype)[..., ::2]
    wide = torch.zeros(x.shape[0], x.shape[1] + 2, *x.shape[2:], dtype=x.dtype)[:, 1:-1]
    form = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    reversed_axes = tuple(range(x.dim()))[::-1]
    return {
        "channels_last": x.contiguous(memory_format=form),
        "transposed": x.permute(reversed_axes).contiguous().permute(reversed_axes),
        "every second voxel": spaced.copy_(x),
        "some channels": wide.copy_(x),
    }


@each_backend
@each_reduce
@pytest.mark.parametrize("space", [(6, 7), (3, 4, 5)], ids=str)
def test_f15_inputs_need_not_be_contiguous(space: tuple[int, ...], reduce: str, backend: str) -> None:
    torch.manual_seed(0)
    x, segments = torch.randn(2, 3, *space), torch.randint(-1, 9, (2, *space))
    weights = torch.randn(2, 3, 9)
    expected = segment_pool(x, segments, 9, reduce=reduce, backend=backend)
    expected_grad = gradient(x, segments, 9, weights, reduce=reduce, backend=backend)
    swapped = segments.transpose(1, 2).contiguous().transpose(1, 2)
    for name, view in layouts(x).items():
        assert not view.is_contiguous(), name
        for ids in (segments, swapped):
            assert torch.equal(segment_pool(view, ids, 9, reduce=reduce, backend=backend), expected), name
            assert torch.equal(gradient(view, ids, 9, weights, reduce=reduce, backend=backend), expected_grad), name
    same_for_all = x[:1].expand(2, *x.shape[1:])
    assert torch.equal(
        segment_pool(same_for_all, segments, 9, reduce=reduce, backend=backend),
        segment_pool(same_for_all.contiguous(), segments, 9, reduce=reduce, backend=backend),
    )
    flipped = expected.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(
        segment_unpool(flipped, swapped, backend=backend), segment_unpool(expected, segments, backend=backend)
    )


def test_f15_importing_the_ops_compiles_nothing_and_loads_no_backend() -> None:
    lazy = {"numba", "cupy", "scipy", "voxpool.kernels.pool_torch"}
    code = f"import sys, voxpool.ops; print(sorted({lazy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=root)
    assert run.stdout.strip() == "[]"


@each_backend
@pytest.mark.parametrize("space", [(3, 4), (2, 3, 3)], ids=str)
def test_f16_pool_and_unpool_chain_in_2d_and_3d_to_second_order(space: tuple[int, ...], backend: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, *space, dtype=torch.float64, requires_grad=True)
    segments = torch.randint(-1, 4, (2, *space))

    def chain(x: Tensor) -> Tensor:
        pooled = [segment_pool(x, segments, 4, reduce=reduce, backend=backend) for reduce in REDUCES]
        return segment_unpool(pooled[0] * pooled[1] + pooled[2], segments, x, backend=backend)

    assert torch.autograd.gradcheck(chain, x)
    assert torch.autograd.gradgradcheck(chain, x)
