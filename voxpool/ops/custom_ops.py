"""The kernels as torch custom ops over flat maps (N, C, P): fake tensors, derivatives, vmap.

The derivative of each op is again one of these ops, so that they can be differentiated as often as wanted.

A plan passes through them as one tensor, its parts one after another, with their sizes: torch maps ops with lists of
tensors over no batch of gradients.
"""

# Custom ops take flat arguments.
# ruff: noqa: PLR0917

from typing import Any

import torch
from torch import Tensor

from voxpool.kernels import layout, registry
from voxpool.ops.checks import check_ids

Gradients = tuple[Tensor | None, ...]

AUTO = ""
"""A custom op takes no `str | None`; the empty name stands for "the first backend that fits"."""


def _narrow(segments: Tensor, num_segments: int) -> Tensor:
    """Bring ids to int32, so that wrong ones, which pass unchecked outside the CPU, stay wrong."""
    if segments.dtype == torch.int64:
        # The conversion alone would turn 2**32 into segment 0.
        segments = segments.clamp(-1, num_segments)
    return segments.to(torch.int32)


def _kernel_segments(segments: Tensor, num_segments: int, checked: bool) -> Tensor:
    """Check the ids, unless that is done or would wait for the device, and bring them into the kernels' form."""
    if not checked and segments.device.type == "cpu":
        check_ids(segments, num_segments)
    return _narrow(segments, num_segments).contiguous()


def _parts(plan: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(plan.split(sizes)) if sizes else []


def _kernels(values: Tensor, backend: str) -> registry.PoolKernels:
    return registry.select(values.device, values.dtype, None if backend == AUTO else backend).kernels()


@torch.library.custom_op("voxpool::segment_max", mutates_args=())
def segment_max(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Maxima (N, C, K) and their positions; see `voxpool.kernels.registry.PoolKernels.segment_max`."""
    segments = _kernel_segments(segments, num_segments, checked)
    return _kernels(x, backend).segment_max(layout.to_kernel_layout(x), segments, num_segments, _parts(plan, sizes))


@torch.library.custom_op("voxpool::segment_sum", mutates_args=())
def segment_sum(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> Tensor:
    """Sums (N, C, K); see `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    segments = _kernel_segments(segments, num_segments, checked)
    return _kernels(x, backend).segment_sum(layout.to_kernel_layout(x), segments, num_segments, _parts(plan, sizes))


@torch.library.custom_op("voxpool::segment_mean", mutates_args=())
def segment_mean(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Means (N, C, K) and voxel counts; see `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    segments = _kernel_segments(segments, num_segments, checked)
    return _kernels(x, backend).segment_mean(layout.to_kernel_layout(x), segments, num_segments, _parts(plan, sizes))


@torch.library.custom_op("voxpool::unpool", mutates_args=())
def unpool(
    pooled: Tensor,
    segments: Tensor,
    base: Tensor | None,
    channels_last: bool,
    plan: Tensor,
    sizes: list[int],
    checked: bool,
    backend: str,
) -> Tensor:
    """Values per voxel (N, C, P); see `voxpool.kernels.registry.PoolKernels.unpool`."""
    segments = _kernel_segments(segments, pooled.shape[2], checked)
    return _kernels(pooled, backend).unpool(pooled.contiguous(), segments, base, channels_last)


@torch.library.custom_op("voxpool::scatter", mutates_args=())
def scatter(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool, backend: str) -> Tensor:
    """The gradient of the maximum (N, C, P); see `voxpool.kernels.registry.PoolKernels.scatter`."""
    return _kernels(pooled, backend).scatter(pooled.contiguous(), argmax, size, channels_last)


@segment_max.register_fake
def _(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], num_segments)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


@segment_sum.register_fake
def _(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], num_segments))


@segment_mean.register_fake
def _(
    x: Tensor, segments: Tensor, num_segments: int, plan: Tensor, sizes: list[int], checked: bool, backend: str
) -> tuple[Tensor, Tensor]:
    means = x.new_empty((x.shape[0], x.shape[1], num_segments))
    return means, x.new_empty((x.shape[0], num_segments), dtype=torch.int64)


@unpool.register_fake
def _(
    pooled: Tensor,
    segments: Tensor,
    base: Tensor | None,
    channels_last: bool,
    plan: Tensor,
    sizes: list[int],
    checked: bool,
    backend: str,
) -> Tensor:
    shape = (pooled.shape[0], pooled.shape[1], segments.shape[1])
    return layout.empty(pooled, shape, channels_last=channels_last)


@scatter.register_fake
def _(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool, backend: str) -> Tensor:
    return layout.empty(pooled, (pooled.shape[0], pooled.shape[1], size), channels_last=channels_last)


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *_, ctx.backend = inputs
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.size, ctx.channels_last = x.shape[2], layout.is_channels_last(x)


def _max_backward(ctx: Any, grad: Tensor, _grad_argmax: Tensor) -> Gradients:
    (argmax,) = ctx.saved_tensors
    return scatter(grad, argmax, ctx.size, ctx.channels_last, ctx.backend), None, None, None, None, None, None


def _save_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _scatter_backward(ctx: Any, grad: Tensor) -> Gradients:
    (argmax,) = ctx.saved_tensors
    if grad.shape[2] == 0:
        return grad.new_zeros(argmax.shape), None, None, None, None
    return grad.gather(2, argmax.clamp(min=0)).masked_fill(argmax < 0, 0), None, None, None, None


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor | tuple[Tensor, Tensor]) -> None:
    x, segments, _, plan, ctx.sizes, ctx.checked, ctx.backend = inputs
    counts = [] if isinstance(output, Tensor) else [output[1]]
    ctx.save_for_backward(segments, plan, *counts)
    ctx.channels_last = layout.is_channels_last(x)


def _spread(ctx: Any, grad: Tensor) -> Gradients:
    segments, plan, *_ = ctx.saved_tensors
    out = unpool(grad, segments, None, ctx.channels_last, plan, ctx.sizes, ctx.checked, ctx.backend)
    return out, None, None, None, None, None, None


def _mean_backward(ctx: Any, grad: Tensor, _grad_counts: Tensor) -> Gradients:
    counts = ctx.saved_tensors[-1]
    # Half precision cannot hold large counts (bfloat16: above 256), so the quotient is taken in float32.
    wide = torch.promote_types(grad.dtype, torch.float32)
    return _spread(ctx, (grad.to(wide) / counts.clamp(min=1).to(wide).unsqueeze(1)).to(grad.dtype))


def _save_unpool(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pooled, segments, base, _, plan, ctx.sizes, ctx.checked, ctx.backend = inputs
    ctx.save_for_backward(segments, plan)
    ctx.num_segments, ctx.based = pooled.shape[2], base is not None


def _unpool_backward(ctx: Any, grad: Tensor) -> Gradients:
    segments, plan = ctx.saved_tensors
    total = None
    if ctx.needs_input_grad[0]:
        total = segment_sum(grad, segments, ctx.num_segments, plan, ctx.sizes, ctx.checked, ctx.backend)
    return total, None, grad if ctx.based else None, None, None, None, None, None


segment_max.register_autograd(_max_backward, setup_context=_save_max)
segment_sum.register_autograd(_spread, setup_context=_save_sum)
segment_mean.register_autograd(_mean_backward, setup_context=_save_sum)
unpool.register_autograd(_unpool_backward, setup_context=_save_unpool)
scatter.register_autograd(_scatter_backward, setup_context=_save_scatter)


def _fold(info: Any, in_dims: tuple[Any, ...], values: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, int]:
    """Hide the mapped axis in the channels when all calls share the segments, else in the samples.

    Returns:
        Values (N, C, ...) and segments (N, P) for one call of the op, and which axis hides the mapped one.
    """
    if in_dims[1] is None:
        return values.movedim(in_dims[0], 1).flatten(1, 2), segments, 1
    return _to_samples(info, in_dims[0], values), _to_samples(info, in_dims[1], segments), 0


def _to_samples(info: Any, dim: int | None, values: Tensor) -> Tensor:
    values = values.expand(info.batch_size, *values.shape) if dim is None else values.movedim(dim, 0)
    return values.flatten(0, 1)


def _unfold(info: Any, folded: Tensor, axis: int) -> Tensor:
    return folded.unflatten(axis, (info.batch_size, folded.shape[axis] // info.batch_size))


def _plan_for(plan: Tensor, sizes: list[int], axis: int) -> tuple[Tensor, list[int]]:
    """A plan serves the same segments with more channels, but not more samples."""
    return (plan, sizes) if axis == 1 else (plan.new_empty(0), [])


@segment_max.register_vmap
def _(info: Any, in_dims: Any, x: Any, segments: Any, num_segments: int, plan: Any, sizes: Any, *options: Any) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    pooled, argmax = segment_max(x, segments, num_segments, *_plan_for(plan, sizes, axis), *options)
    return (_unfold(info, pooled, axis), _unfold(info, argmax, axis)), (axis, axis)


@segment_sum.register_vmap
def _(info: Any, in_dims: Any, x: Any, segments: Any, num_segments: int, plan: Any, sizes: Any, *options: Any) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    total = segment_sum(x, segments, num_segments, *_plan_for(plan, sizes, axis), *options)
    return _unfold(info, total, axis), axis


@segment_mean.register_vmap
def _(info: Any, in_dims: Any, x: Any, segments: Any, num_segments: int, plan: Any, sizes: Any, *options: Any) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    means, counts = segment_mean(x, segments, num_segments, *_plan_for(plan, sizes, axis), *options)
    if axis == 1:
        return (_unfold(info, means, axis), counts), (axis, None)
    return (_unfold(info, means, axis), _unfold(info, counts, axis)), (axis, axis)


@unpool.register_vmap
def _(
    info: Any,
    in_dims: Any,
    pooled: Tensor,
    segments: Tensor,
    base: Tensor | None,
    channels_last: bool,
    plan: Tensor,
    sizes: list[int],
    *options: Any,
) -> Any:
    pooled = _to_samples(info, in_dims[0], pooled)
    base = None if base is None else _to_samples(info, in_dims[2], base)
    segments = _to_samples(info, in_dims[1], segments)
    out = unpool(pooled, segments, base, channels_last, *_plan_for(plan, sizes, 0), *options)
    return _unfold(info, out, 0), 0


@scatter.register_vmap
def _(info: Any, in_dims: Any, pooled: Tensor, argmax: Tensor, *options: Any) -> Any:
    folded = (_to_samples(info, dim, values) for dim, values in zip(in_dims, (pooled, argmax), strict=False))
    return _unfold(info, scatter(*folded, *options), 0), 0
