"""Supervoxels in place of segments and their number: the same results, checked once."""

import dataclasses

import pytest
import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.ops import Supervoxels, segment_pool, segment_unpool

K = 9


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def segments() -> Tensor:
    return torch.randint(-1, K, (2, 4, 5, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", [None, "numba", "torch", "ndimage"])
@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64], ids=str)
def test_they_pool_and_unpool_as_plain_segments_do(
    x: Tensor, segments: Tensor, id_dtype: torch.dtype, backend: str | None
) -> None:
    supervoxels = Supervoxels.of(segments.to(id_dtype), K)
    assert supervoxels.segments.dtype == torch.int32
    for reduce in ("max", "mean", "sum"):
        pooled = segment_pool(x, supervoxels, reduce=reduce, backend=backend)
        assert torch.equal(pooled, segment_pool(x, segments, K, reduce=reduce, backend=backend))
        out = segment_unpool(pooled, supervoxels, x, backend=backend)
        assert torch.equal(out, segment_unpool(pooled, segments, x, backend=backend))


def test_gradients_are_those_of_plain_segments(x: Tensor, segments: Tensor) -> None:
    supervoxels = Supervoxels.of(segments, K)
    x.requires_grad_()
    gradients = []
    for arguments in ((supervoxels,), (segments, K)):
        pooled = segment_pool(x, *arguments, reduce="mean")
        out = segment_unpool(pooled, arguments[0], x)
        gradients.append(torch.autograd.grad(out.square().sum(), x)[0])
    assert torch.equal(*gradients)


def test_ids_are_checked_once_and_for_all(segments: Tensor) -> None:
    segments[0, 0, 0, 0] = K
    with pytest.raises(UsageError, match=f"ids from -1 .* to num_segments - 1 = {K - 1}, got ids from -1 to {K}"):
        Supervoxels.of(segments, K)
    supervoxels = Supervoxels.of(segments, K + 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        supervoxels.num_segments = 3  # type: ignore[misc]


def test_what_does_not_fit_them_is_refused(x: Tensor, segments: Tensor) -> None:
    supervoxels = Supervoxels.of(segments, K)
    with pytest.raises(UsageError, match=f"left out with Supervoxels of {K}, got 4"):
        segment_pool(x, supervoxels, 4)
    with pytest.raises(UsageError, match=r"segments must have shape \(1, 4, 5, 6\), got \(2, 4, 5, 6\)"):
        segment_pool(x[:1], supervoxels)
    with pytest.raises(UsageError, match=f"pooled must have {K} segments as the supervoxels, got 4"):
        segment_unpool(torch.zeros(2, 3, 4), supervoxels)
    with pytest.raises(UsageError, match="num_segments is missing"):
        segment_pool(x, segments)


def test_another_device_gets_its_own(segments: Tensor) -> None:
    supervoxels = Supervoxels.of(segments, K)
    assert supervoxels.to("cpu") is supervoxels
    assert supervoxels.to(torch.device("cpu")) is supervoxels


def test_compiled(x: Tensor, segments: Tensor) -> None:
    supervoxels = Supervoxels.of(segments, K)

    def pool(values: Tensor) -> Tensor:
        return segment_unpool(segment_pool(values, supervoxels), supervoxels, values)

    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), pool(x))
