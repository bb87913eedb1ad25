"""The public operations on the emulated kernels: shapes, gradients, layouts."""

import pytest
import torch

from voxpool.kernels import registry
from voxpool.ops import Supervoxels, segment_pool, segment_unpool

SPACE = (3, 4, 5)


@pytest.fixture
def segments() -> torch.Tensor:
    return torch.randint(-1, 6, (2, *SPACE), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn((2, 3, *SPACE), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_pooled_values_and_gradients_are_the_references(
    reduce: str, memory_format: torch.memory_format, x: torch.Tensor, segments: torch.Tensor, backend: str
) -> None:
    x = x.to(memory_format=memory_format)
    results = []
    for name in (backend, "ndimage"):
        leaf = x.clone().requires_grad_()
        pooled = segment_pool(leaf, segments, 7, reduce=reduce, backend=name)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), leaf)
        assert gradient.is_contiguous(memory_format=memory_format)
        results.append((pooled, gradient))
    torch.testing.assert_close(results[0], results[1])


def test_positions_are_the_references(x: torch.Tensor, segments: torch.Tensor, backend: str) -> None:
    positions = [segment_pool(x, segments, 7, return_argmax=True, backend=b)[1] for b in (backend, "ndimage")]
    assert torch.equal(*positions)


@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
def test_gradients_of_pooling_are_right_to_second_order(
    reduce: str, x: torch.Tensor, segments: torch.Tensor, backend: str
) -> None:
    x, segments = x[:1, :2, :2].requires_grad_(), segments[:1, :2]

    def pool(values: torch.Tensor) -> torch.Tensor:
        return segment_pool(values, segments, 7, reduce=reduce, backend=backend)

    assert torch.autograd.gradcheck(pool, x)
    assert torch.autograd.gradgradcheck(pool, x)


def test_gradients_of_unpooling_are_right(x: torch.Tensor, segments: torch.Tensor, backend: str) -> None:
    pooled = torch.randn((1, 2, 6), dtype=torch.float64).requires_grad_()
    base, segments = x[:1, :2, :2].requires_grad_(), segments[:1, :2]

    def unpool(values: torch.Tensor, under: torch.Tensor) -> torch.Tensor:
        return segment_unpool(values, segments, under, backend=backend)

    assert torch.autograd.gradcheck(unpool, (pooled, base))


@pytest.mark.parametrize("space", [(60,), (6, 10), (3, 4, 5), (2, 3, 2, 5)], ids=str)
def test_any_number_of_axes(space: tuple[int, ...], x: torch.Tensor, segments: torch.Tensor, backend: str) -> None:
    pooled = segment_pool(x.reshape(2, 3, *space), segments.reshape(2, *space), 7, backend=backend)
    assert torch.equal(pooled, segment_pool(x, segments, 7, backend="ndimage"))
    out = segment_unpool(pooled, segments.reshape(2, *space), backend=backend)
    assert torch.equal(out.reshape(x.shape), segment_unpool(pooled, segments, backend="ndimage"))


def test_many_maps_at_once(x: torch.Tensor, segments: torch.Tensor, backend: str) -> None:
    def pool(values: torch.Tensor) -> torch.Tensor:
        return segment_pool(values, segments, 7, reduce="mean", backend=backend)

    stacked = torch.stack([x, -x, x * x])
    torch.testing.assert_close(torch.vmap(pool)(stacked), torch.stack([pool(v) for v in stacked]))


def test_compiled_with_a_plan(x: torch.Tensor, segments: torch.Tensor, backend: str, monkeypatch) -> None:
    # the preferred backend makes the plan of Supervoxels
    monkeypatch.setattr(registry, "BACKENDS", {backend: registry.BACKENDS[backend]})
    supervoxels = Supervoxels.of(segments, 7)
    assert supervoxels.sizes

    def pool(values: torch.Tensor) -> torch.Tensor:
        return segment_pool(values, supervoxels, reduce="sum") + segment_pool(values, supervoxels)

    results = []
    for function in (pool, torch.compile(pool, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        pooled = function(leaf)
        results.append((pooled, *torch.autograd.grad(pooled.square().sum(), leaf)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    expected = segment_pool(x, segments, 7, reduce="sum") + segment_pool(x, segments, 7)
    torch.testing.assert_close(results[0][0], expected)
