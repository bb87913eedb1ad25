"""Ways to pool: ours, and what one would use without it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxpool import segment_pool
from voxpool_pipelines.bench.cases import Inputs

Reduce = Literal["max", "mean"]
Pooled = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Method:
    """One way to pool.

    Attributes:
        name: Its name in tables.
        reduce: "max" or "mean".
        forward: Gives the pooled values (C, K), and their positions (C, K) or None where the method has none.
        gradient: Runs forward and backward and gives the fresh gradient (C, P) or (1, C, *S); None where the
            method has no gradient.
        devices: Device types that it runs on.
        any_map: Whether it takes channels-last maps and half precision.
        channels: Channels that it handles, the first ones; None for all. Its time is scaled up to all.
        note: What a reader must know.
    """

    name: str
    reduce: Reduce
    forward: Callable[[Inputs], Pooled]
    gradient: Callable[[Inputs], Tensor] | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    any_map: bool = False
    channels: int | None = None
    note: str = ""


def _ours(reduce: Reduce) -> Method:
    def forward(inputs: Inputs) -> Pooled:
        if reduce == "max":
            values, argmax = segment_pool(inputs.x, inputs.supervoxels, return_argmax=True)
            return values[0], argmax[0]
        return segment_pool(inputs.x, inputs.supervoxels, reduce=reduce)[0], None

    def gradient(inputs: Inputs) -> Tensor:
        x = inputs.x.detach().requires_grad_()
        return torch.autograd.grad(segment_pool(x, inputs.supervoxels, reduce=reduce), x, inputs.grad)[0]

    return Method("voxpool", reduce, forward, gradient, any_map=True)


def _by_torch(name: str, reduce: Reduce, pool: Callable[[Tensor, Inputs], Any], **options: Any) -> Method:
    """A method that torch differentiates; `pool` maps (C, P) to values (C, K), or to values and positions."""

    def values(flat: Tensor, inputs: Inputs) -> Pooled:
        found = pool(flat, inputs)
        return found if isinstance(found, tuple) else (found, None)

    def gradient(inputs: Inputs) -> Tensor:
        flat = inputs.flat.detach().requires_grad_()
        return torch.autograd.grad(values(flat, inputs)[0], flat, inputs.grad[0])[0]

    return Method(name, reduce, lambda inputs: values(inputs.flat, inputs), gradient, **options)


def _scatter_amax(flat: Tensor, inputs: Inputs) -> Tensor:
    out = flat.new_zeros((len(flat), inputs.num_segments))
    return out.scatter_reduce(1, inputs.index, flat, "amax", include_self=False)


def _scatter_add(flat: Tensor, inputs: Inputs) -> Tensor:
    return flat.new_zeros((len(flat), inputs.num_segments)).scatter_add(1, inputs.index, flat) / inputs.counts


def _index_add(flat: Tensor, inputs: Inputs) -> Tensor:
    return flat.new_zeros((len(flat), inputs.num_segments)).index_add(1, inputs.index[0], flat) / inputs.counts


def _numba_max() -> Method:
    def forward(inputs: Inputs) -> Pooled:
        return _numba().segment_max(inputs.flat, inputs.ids, inputs.num_segments)

    def gradient(inputs: Inputs) -> Tensor:
        _, argmax = forward(inputs)
        return _numba().max_gradient(inputs.grad[0], argmax, inputs.flat.shape[1])

    return Method("numba prange", "max", forward, gradient, devices=("cpu",))


def _numba_mean() -> Method:
    def forward(inputs: Inputs) -> Pooled:
        return _numba().segment_mean(inputs.flat, inputs.ids, inputs.num_segments)[0], None

    def gradient(inputs: Inputs) -> Tensor:
        _, counts = _numba().segment_mean(inputs.flat, inputs.ids, inputs.num_segments)
        return _numba().mean_gradient(inputs.grad[0], inputs.ids, counts)

    return Method("numba prange", "mean", forward, gradient, devices=("cpu",))


def _numba() -> Any:
    """Loaded when it is used: a benchmark on a GPU does without."""
    return import_module("voxpool.kernels.peers_numba")


def _ndimage_max(inputs: Inputs) -> Pooled:
    channel, ids = inputs.flat[0].numpy(), inputs.ids.numpy()
    places = ndimage.maximum_position(channel, ids, np.arange(inputs.num_segments))
    argmax = torch.from_numpy(np.array(places, np.int64).reshape(1, -1))
    return inputs.flat[:1].gather(1, argmax), argmax


def _ndimage_mean(inputs: Inputs) -> Pooled:
    means = ndimage.mean(inputs.flat[0].numpy(), inputs.ids.numpy(), np.arange(inputs.num_segments))
    return torch.from_numpy(np.asarray(means)).unsqueeze(0), None


def _torch_scatter() -> list[Method]:
    """The package torch_scatter, where it is installed."""
    if find_spec("torch_scatter") is None:
        return []
    package = import_module("torch_scatter")

    def largest(flat: Tensor, inputs: Inputs) -> Pooled:
        return package.scatter_max(flat, inputs.index, dim=1, dim_size=inputs.num_segments)

    def mean(flat: Tensor, inputs: Inputs) -> Tensor:
        return package.scatter_mean(flat, inputs.index, dim=1, dim_size=inputs.num_segments)

    return [_by_torch("torch_scatter", "max", largest), _by_torch("torch_scatter", "mean", mean)]


def _scaled(reduce: Reduce, forward: Callable[[Inputs], Pooled]) -> Method:
    note = "one channel, times C"
    return Method("scipy.ndimage", reduce, forward, devices=("cpu",), channels=1, note=note)


def all_methods() -> tuple[Method, ...]:
    """Every method that this environment has, ours first."""
    return (
        _ours("max"),
        _numba_max(),
        _by_torch("torch scatter_reduce amax", "max", _scatter_amax, note="gives no positions"),
        _scaled("max", _ndimage_max),
        _ours("mean"),
        _numba_mean(),
        _by_torch("torch scatter_add, divide", "mean", _scatter_add),
        _by_torch("torch index_add, divide", "mean", _index_add),
        _scaled("mean", _ndimage_mean),
        *_torch_scatter(),
    )
