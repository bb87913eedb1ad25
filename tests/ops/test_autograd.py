"""What torch asks of a custom op: derivatives, fake tensors, vmap, compile, autocast, equal bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from voxpool.kernels import layout
from voxpool.kernels.registry import BACKENDS
from voxpool.ops import segment_pool, segment_unpool

K = 7
SPACES = [(4, 5), (2, 3, 4)]
REDUCES = ["max", "mean", "sum"]

each_space = pytest.mark.parametrize("space", SPACES, ids=str)
each_reduce = pytest.mark.parametrize("reduce", REDUCES)
CPU_BACKENDS = [name for name, backend in BACKENDS.items() if backend.refusal("cpu", torch.float32) is None]

each_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)


def case(space: tuple[int, ...], *, samples: int = 2, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Distinct values, so that the maximum is differentiable; ids leave segment K - 1 empty."""
    torch.manual_seed(1)
    shape = (samples, channels, *space)
    x = torch.randperm(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape) / 16
    return x, torch.randint(-1, K - 1, (samples, *space))


@each_space
@each_reduce
@each_backend
def test_first_and_second_derivatives_of_pool(space: tuple[int, ...], reduce: str, backend: str) -> None:
    x, segments = case(space)
    x.requires_grad_()

    def pool(x: Tensor) -> Tensor:
        return segment_pool(x, segments, K, reduce=reduce, backend=backend)

    assert torch.autograd.gradcheck(pool, x)
    assert torch.autograd.gradgradcheck(pool, x)
    assert torch.autograd.gradgradcheck(lambda x: pool(x / 64) ** 3, x)


@each_space
@each_backend
def test_first_and_second_derivatives_of_unpool(space: tuple[int, ...], backend: str) -> None:
    base, segments = case(space)
    pooled = torch.randn(2, 3, K, dtype=torch.float64, requires_grad=True)
    base.requires_grad_()

    def unpool(pooled: Tensor, base: Tensor) -> Tensor:
        return segment_unpool(pooled, segments, base, backend=backend)

    assert torch.autograd.gradcheck(unpool, (pooled, base))
    assert torch.autograd.gradgradcheck(unpool, (pooled, base))


@each_space
@each_backend
@pytest.mark.parametrize("op", ["segment_max", "segment_sum", "segment_mean", "unpool", "scatter"])
@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels-last"])
def test_opcheck(op: str, space: tuple[int, ...], backend: str, id_dtype: torch.dtype, channels_last: bool) -> None:
    x, segments = case(space)
    flat, ids = layout.arrange(x.flatten(2), channels_last=channels_last), segments.flatten(1).to(id_dtype)
    pooled = torch.randn(2, 3, K, dtype=torch.float64, requires_grad=True)
    no_plan = torch.empty(0, dtype=torch.int32)
    arguments: tuple
    if op == "unpool":
        arguments = (pooled, ids, flat.requires_grad_(), channels_last, no_plan, [], False, backend)
    elif op == "scatter":
        argmax = segment_pool(x, segments, K, return_argmax=True)[1]
        arguments = (pooled, argmax, flat.shape[2], channels_last, backend)
    else:
        arguments = (flat.requires_grad_(), ids, K, no_plan, [], False, backend)
    checks = torch.library.opcheck(getattr(torch.ops.voxpool, op).default, arguments)
    assert set(checks.values()) == {"SUCCESS"}


def mapped(function: Callable[..., Tensor], dims: tuple[int | None, ...], *arguments: Tensor) -> Tensor:
    """The loop that vmap stands for."""
    size = next(a.shape[d] for a, d in zip(arguments, dims, strict=True) if d is not None)
    calls = [[a if d is None else a.select(d, i) for a, d in zip(arguments, dims, strict=True)] for i in range(size)]
    return torch.stack([function(*call) for call in calls])


@each_reduce
@each_backend
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (2, 3), (4, None), (None, 2)], ids=str)
def test_vmap_of_pool_is_a_loop(reduce: str, backend: str, dims: tuple[int | None, ...]) -> None:
    x, segments = case((3, 4), samples=2)
    x = x if dims[0] is None else torch.stack([x, -x, x.flip(3)], dim=dims[0])
    segments = segments if dims[1] is None else torch.stack([segments, segments.flip(1), segments], dim=dims[1])

    def pool(x: Tensor, segments: Tensor) -> Tensor:
        return segment_pool(x, segments, K, reduce=reduce, backend=backend)

    assert torch.equal(torch.vmap(pool, in_dims=dims)(x, segments), mapped(pool, dims, x, segments))


@each_backend
def test_vmap_of_argmax_is_a_loop(backend: str) -> None:
    x, segments = case((3, 4))
    many = torch.stack([x, -x, x.flip(3)])

    def argmax(x: Tensor) -> Tensor:
        return segment_pool(x, segments, K, return_argmax=True, backend=backend)[1]

    assert torch.equal(torch.vmap(argmax)(many), mapped(argmax, (0,), many))


@each_backend
@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 1)], ids=str)
def test_vmap_of_unpool_is_a_loop(backend: str, dims: tuple[int | None, ...]) -> None:
    _, segments = case((3, 4))
    pooled = torch.randn(2, 3, K)
    pooled = pooled if dims[0] is None else torch.stack([pooled, -pooled], dim=dims[0])
    segments = segments if dims[1] is None else torch.stack([segments, segments.flip(1)], dim=dims[1])

    def unpool(pooled: Tensor, segments: Tensor) -> Tensor:
        return segment_unpool(pooled, segments, backend=backend)

    assert torch.equal(torch.vmap(unpool, in_dims=dims)(pooled, segments), mapped(unpool, dims, pooled, segments))


@each_reduce
def test_batched_derivatives_equal_single_ones(reduce: str) -> None:
    x, segments = case((3, 4), samples=1, channels=2)

    def cubes(x: Tensor) -> Tensor:
        pooled = segment_pool(x, segments, K, reduce=reduce)
        return (segment_unpool(pooled, segments, x) ** 3).sum()

    one_by_one = torch.autograd.functional.hessian(cubes, x)
    assert one_by_one.abs().sum() > 0
    torch.testing.assert_close(torch.autograd.functional.hessian(cubes, x, vectorize=True), one_by_one)


class Head(torch.nn.Module):
    """The pattern of head V3: voxel scores plus scores of supervoxels."""

    def __init__(self, reduce: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reduce = reduce
        self.conv = torch.nn.Conv3d(2, 3, 3, padding=1)
        self.scores = torch.nn.Conv1d(3, 3, 1)

    def forward(self, x: Tensor, segments: Tensor, num_segments: int) -> Tensor:
        features = self.conv(x)
        pooled = segment_pool(features, segments, num_segments, reduce=self.reduce)
        return segment_unpool(self.scores(pooled), segments, features)


@each_reduce
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(reduce: str, dynamic: bool) -> None:
    torch.compiler.reset()
    head = Head(reduce)
    compiled = torch.compile(head, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size, num_segments in ((4, 6), (5, 9)):
        x = torch.randn(2, 2, size, 4, 6)
        segments = torch.randint(-1, num_segments, (2, size, 4, 6), dtype=torch.int32)
        results = []
        for model in (head, compiled):
            out = model(x, segments, num_segments)
            results.append((out, *torch.autograd.grad((out**2).sum(), list(head.parameters()))))
        for eager, graph in zip(*results, strict=True):
            torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-6)


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_keeps_half_precision_and_sums_wide(backend: str, dtype: torch.dtype) -> None:
    segments = torch.zeros(1, 4096, dtype=torch.int32)
    with torch.autocast("cpu", dtype):
        x = torch.nn.functional.linear(torch.ones(1, 1, 4096, 1), torch.ones(1, 1)).squeeze(3)
        assert x.dtype == dtype
        pooled = {reduce: segment_pool(x, segments, 1, reduce=reduce, backend=backend) for reduce in REDUCES}
    assert {name: (value.item(), value.dtype) for name, value in pooled.items()} == {
        "max": (1.0, dtype),
        "mean": (1.0, dtype),
        "sum": (4096.0, dtype),
    }


def test_mean_gradient_in_half_precision_divides_by_the_exact_count() -> None:
    x = torch.zeros(1, 1, 2731, dtype=torch.bfloat16, requires_grad=True)
    pooled = segment_pool(x, torch.zeros(1, 2731, dtype=torch.int32), 1, reduce="mean")
    (grad,) = torch.autograd.grad(pooled.sum(), x)
    assert set(grad.unique().tolist()) == {torch.tensor(1 / 2731, dtype=torch.bfloat16).item()}


@each_reduce
@each_backend
def test_equal_bits_over_20_runs(reduce: str, backend: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 3, 8, 9, 10)
    values = torch.where(values > 1, 1.0, values)  # ties at the maximum
    segments = torch.randint(-1, 6, (2, 8, 9, 10), dtype=torch.int32)
    first: tuple[Tensor, Tensor] | None = None
    for _ in range(20):
        x = values.clone().requires_grad_()
        pooled = segment_pool(x, segments, 6, reduce=reduce, backend=backend)
        (grad,) = torch.autograd.grad((pooled**2).sum(), x)
        first = first or (pooled, grad)
        assert torch.equal(pooled, first[0])
        assert torch.equal(grad, first[1])
