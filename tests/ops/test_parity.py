"""Backends against a brute-force loop on random data, and against each other's derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxpool.kernels.registry import BACKENDS, FLOAT_DTYPES
from voxpool.ops import segment_pool, segment_unpool

CPU_BACKENDS = [name for name, backend in BACKENDS.items() if backend.refusal("cpu", torch.float32) is None]

# How far a sum may be from the float64 sum: one rounding to the dtype.
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1.2e-7, torch.float64: 1e-13}


def hard_case(space: tuple[int, ...], dtype: torch.dtype, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Values on a coarse grid (many ties) with NaN and infinities; ids with gaps and ignored voxels."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-12, 13, (3, 4, *space)) / 4
    x[rng.random(x.shape) < 0.02] = np.nan
    x[rng.random(x.shape) < 0.1] = -np.inf
    x[:, 0] = -np.inf
    segments = rng.choice([-1, 0, 1, 2, 5, 6, 7, 11], (3, *space))
    return torch.from_numpy(x).to(dtype), torch.from_numpy(segments), 13


def brute_force(x: torch.Tensor, segments: torch.Tensor, num_segments: int) -> dict[str, np.ndarray]:
    values = x.double().flatten(2).numpy()
    ids = segments.flatten(1).numpy()
    shape = (*values.shape[:2], num_segments)
    out = {name: np.zeros(shape) for name in ("max", "mean", "sum")} | {"argmax": np.full(shape, -1)}
    for n, c, k in np.ndindex(*shape):
        where = np.flatnonzero(ids[n] == k)
        if where.size:
            inside = values[n, c, where]
            first = where[np.argmax(inside)]  # numpy's argmax: the first NaN, else the first maximum
            with np.errstate(invalid="ignore"):
                total = inside.sum()
            out["sum"][n, c, k], out["mean"][n, c, k] = total, total / where.size
            out["max"][n, c, k], out["argmax"][n, c, k] = values[n, c, first], first
    return out


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("space", [(9, 13), (5, 4, 7)], ids=str)
@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64], ids=str)
def test_random_data(backend: str, dtype: torch.dtype, space: tuple[int, ...], id_dtype: torch.dtype) -> None:
    x, segments, num_segments = hard_case(space, dtype, seed=len(space))
    expected = brute_force(x, segments, num_segments)
    ids = segments.to(id_dtype)
    maxima, argmax = segment_pool(x, ids, num_segments, return_argmax=True, backend=backend)
    np.testing.assert_array_equal(argmax, expected["argmax"])
    np.testing.assert_array_equal(maxima.double(), expected["max"])
    for reduce in ("sum", "mean"):
        pooled = segment_pool(x, ids, num_segments, reduce=reduce, backend=backend)
        assert pooled.dtype == dtype
        np.testing.assert_allclose(pooled.double(), expected[reduce], rtol=ROUNDING[dtype], atol=1e-14)
    unpooled = segment_unpool(maxima, ids, backend=backend).double().flatten(2).numpy()
    for n in range(3):
        flat = segments[n].flatten().numpy()
        painted = np.where(flat < 0, 0, expected["max"][n][:, flat])
        np.testing.assert_array_equal(unpooled[n], painted)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
def test_backends_agree_on_gradients(dtype: torch.dtype, reduce: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 3, 6, 5, 4).to(dtype)
    segments = torch.randint(-1, 9, (2, 6, 5, 4))
    weights = torch.randn(2, 3, 10).to(dtype)
    grads = []
    for backend in CPU_BACKENDS:
        x = values.clone().requires_grad_()
        pooled = segment_pool(x, segments, 10, reduce=reduce, backend=backend)
        back = segment_unpool(pooled * weights, segments, x, backend=backend)
        grads.append(torch.autograd.grad((back * values).sum(), x)[0])
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0], rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@st.composite
def maps(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Small integers as float64, so that both sides of an identity are exact; (x, pooled, segments)."""
    samples, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    space = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    num_segments = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = torch.from_numpy(rng.integers(-9, 10, (samples, channels, *space)).astype(float))
    pooled = torch.from_numpy(rng.integers(-9, 10, (samples, channels, num_segments)).astype(float))
    return x, pooled, torch.from_numpy(rng.integers(-1, num_segments, (samples, *space)))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@settings(max_examples=60, deadline=None)
@given(case=maps())
def test_unpool_is_the_adjoint_of_sum_pool(backend: str, case: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    x, pooled, segments = case
    left = (segment_pool(x, segments, pooled.shape[2], reduce="sum", backend=backend) * pooled).sum()
    right = (x * segment_unpool(pooled, segments, backend=backend)).sum()
    assert left == right


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@settings(max_examples=40, deadline=None)
@given(case=maps())
def test_pooling_what_was_unpooled_gives_it_back(
    backend: str, case: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    _, pooled, segments = case
    voxels = segment_unpool(pooled, segments, backend=backend)
    occurs = torch.stack([torch.isin(torch.arange(pooled.shape[2]), ids) for ids in segments]).unsqueeze(1)
    for reduce in ("max", "mean"):
        again = segment_pool(voxels, segments, pooled.shape[2], reduce=reduce, backend=backend)
        assert torch.equal(again, torch.where(occurs, pooled, 0.0))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (2, 3, 0, 3)], ids=str)
def test_empty_axes(backend: str, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    segments = torch.zeros((shape[0], *shape[2:]), dtype=torch.int32)
    for reduce in ("max", "mean", "sum"):
        pooled = segment_pool(x, segments, 4, reduce=reduce, backend=backend)
        assert torch.equal(pooled, torch.zeros(*shape[:2], 4))
        back = segment_unpool(pooled, segments, backend=backend)
        (grad,) = torch.autograd.grad(back.sum() + pooled.sum(), x)
        assert grad.shape == shape
