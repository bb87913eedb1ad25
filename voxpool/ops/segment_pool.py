"""Pool voxels into supervoxels and back: torch custom ops over any number of spatial axes.

`segment_pool` reduces every channel of a feature map over each segment, eq. (1) of the superpixel pooling paper;
`segment_unpool` paints the pooled values back. The ops work on flattened space; their derivatives are again
these ops, so they can be differentiated as often as wanted.
"""

import math
from typing import Any, Literal, overload

import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels import registry

Reduce = Literal["max", "mean", "sum"]
_AUTO = ""


def _kernel_inputs(values: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Check the ids where that costs no device sync, and bring both tensors into the kernels' layout."""
    if segments.device.type == "cpu" and segments.numel() > 0:
        low, high = (int(bound) for bound in segments.aminmax())
        if low < -1 or high >= num_segments:
            raise UsageError(
                f"segments must hold ids from -1 (ignored) to num_segments - 1 = {num_segments - 1}, "
                f"got ids from {low} to {high}; raise num_segments or use compact_segments"
            )
    return values.contiguous(), segments.to(torch.int32).contiguous()


def _kernels(values: Tensor, backend: str) -> registry.PoolKernels:
    return registry.select(values.device, values.dtype, None if backend == _AUTO else backend).kernels()


@torch.library.custom_op("voxpool::segment_max", mutates_args=())
def _segment_max(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> tuple[Tensor, Tensor]:
    x, segments = _kernel_inputs(x, segments, num_segments)
    return _kernels(x, backend).segment_max(x, segments, num_segments)


@torch.library.custom_op("voxpool::segment_sum", mutates_args=())
def _segment_sum(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> Tensor:
    x, segments = _kernel_inputs(x, segments, num_segments)
    return _kernels(x, backend).segment_sum(x, segments, num_segments)


@torch.library.custom_op("voxpool::segment_mean", mutates_args=())
def _segment_mean(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> tuple[Tensor, Tensor]:
    x, segments = _kernel_inputs(x, segments, num_segments)
    return _kernels(x, backend).segment_mean(x, segments, num_segments)


@torch.library.custom_op("voxpool::unpool", mutates_args=())
def _unpool(pooled: Tensor, segments: Tensor, backend: str) -> Tensor:
    pooled, segments = _kernel_inputs(pooled, segments, pooled.shape[2])
    return _kernels(pooled, backend).unpool(pooled, segments)


@_segment_max.register_fake
def _(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], num_segments)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


@_segment_sum.register_fake
def _(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], num_segments))


@_segment_mean.register_fake
def _(x: Tensor, segments: Tensor, num_segments: int, backend: str) -> tuple[Tensor, Tensor]:
    means = x.new_empty((x.shape[0], x.shape[1], num_segments))
    return means, x.new_empty((x.shape[0], num_segments), dtype=torch.int64)


@_unpool.register_fake
def _(pooled: Tensor, segments: Tensor, backend: str) -> Tensor:
    return pooled.new_empty((pooled.shape[0], pooled.shape[1], segments.shape[1]))


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.size = inputs[0].shape[2]


def _max_backward(ctx: Any, grad: Tensor, _grad_argmax: Tensor) -> tuple[Tensor | None, ...]:
    (argmax,) = ctx.saved_tensors
    # A voxel is the maximum of at most one segment, so adding never adds two gradients; the masked ones add 0.
    grad = grad.masked_fill(argmax < 0, 0)
    zeros = grad.new_zeros((grad.shape[0], grad.shape[1], ctx.size))
    if ctx.size == 0:
        return zeros, None, None, None
    return zeros.scatter_add(2, argmax.clamp(min=0), grad), None, None, None


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.backend = inputs[3]


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _unpool(grad, ctx.saved_tensors[0], ctx.backend), None, None, None


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], output[1])
    ctx.backend = inputs[3]


def _mean_backward(ctx: Any, grad: Tensor, _grad_counts: Tensor) -> tuple[Tensor | None, ...]:
    segments, counts = ctx.saved_tensors
    # Half precision cannot hold counts above 2048 (bfloat16: 256), so the quotient is taken in float32.
    exact = torch.promote_types(grad.dtype, torch.float32)
    share = (grad.to(exact) / counts.clamp(min=1).to(exact).unsqueeze(1)).to(grad.dtype)
    return _unpool(share, segments, ctx.backend), None, None, None


def _save_unpool(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.num_segments = inputs[0].shape[2]
    ctx.backend = inputs[2]


def _unpool_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _segment_sum(grad, ctx.saved_tensors[0], ctx.num_segments, ctx.backend), None, None


_segment_max.register_autograd(_max_backward, setup_context=_save_max)
_segment_sum.register_autograd(_sum_backward, setup_context=_save_sum)
_segment_mean.register_autograd(_mean_backward, setup_context=_save_mean)
_unpool.register_autograd(_unpool_backward, setup_context=_save_unpool)


def _check_segments(segments: Tensor, device: torch.device) -> None:
    if segments.dtype not in (torch.int32, torch.int64):
        raise UsageError(f"segments must be int32 or int64, got {segments.dtype}; use segments.int()")
    if segments.device != device:
        raise UsageError(f"segments must be on {device} like the values, got {segments.device}")


@overload
def segment_pool(
    x: Tensor,
    segments: Tensor,
    num_segments: int,
    *,
    reduce: Reduce = ...,
    return_argmax: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def segment_pool(
    x: Tensor,
    segments: Tensor,
    num_segments: int,
    *,
    reduce: Literal["max"] = ...,
    return_argmax: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def segment_pool(
    x: Tensor,
    segments: Tensor,
    num_segments: int,
    *,
    reduce: Reduce = "max",
    return_argmax: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce every channel over each supervoxel.

    Args:
        x: Values, shape (N, C, *S) with any number of spatial axes; float16, bfloat16, float32 or float64.
        segments: Supervoxel ids, shape (N, *S), int32 (no copy) or int64; 0..num_segments-1, -1 is ignored.
        num_segments: Number of segments K, a Python int.
        reduce: "max", "mean" or "sum".
        return_argmax: With "max": also return where in the flattened space each maximum lies.
        backend: "numba", "torch" or "ndimage"; None takes the fastest that fits.

    Returns:
        Pooled values (N, C, K) in the dtype of `x`; with `return_argmax` also positions (N, C, K) int64.
    """
    if x.dim() < 3:
        raise UsageError(f"x must have shape (N, C, *spatial), got {tuple(x.shape)}")
    samples, channels, *space = x.shape
    if segments.shape != (samples, *space):
        raise UsageError(f"segments must have shape {(samples, *space)}, got {tuple(segments.shape)}")
    _check_segments(segments, x.device)
    if not x.dtype.is_floating_point:
        raise UsageError(f"x must be a floating-point tensor, got {x.dtype}; use x.float()")
    if isinstance(num_segments, bool) or not isinstance(num_segments, (int, torch.SymInt)):
        raise UsageError(f"num_segments must be a Python int, got {type(num_segments).__name__}")
    if num_segments < 0:
        raise UsageError(f"num_segments must be 0 or more, got {num_segments}")
    if return_argmax and reduce != "max":
        raise UsageError(f'return_argmax needs reduce="max", got reduce={reduce!r}')
    size = math.prod(space)
    flat = x.reshape(samples, channels, size), segments.reshape(samples, size), num_segments, backend or _AUTO
    if reduce == "max":
        pooled, argmax = _segment_max(*flat)
        return (pooled, argmax) if return_argmax else pooled
    if reduce == "mean":
        return _segment_mean(*flat)[0]
    if reduce == "sum":
        return _segment_sum(*flat)
    raise UsageError(f'reduce must be "max", "mean" or "sum", got {reduce!r}')


def segment_unpool(
    pooled: Tensor, segments: Tensor, base: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Give every voxel the value of its supervoxel: `base + pooled[..., segments]`.

    Args:
        pooled: Values per segment, shape (N, C, K).
        segments: Supervoxel ids, shape (N, *S), int32 or int64; 0..K-1, -1 gives 0.
        base: Added to the result, shape (N, C, *S).
        backend: As in `segment_pool`.

    Returns:
        Values per voxel, shape (N, C, *S).
    """
    if pooled.dim() != 3:
        raise UsageError(f"pooled must have shape (N, C, K), got {tuple(pooled.shape)}")
    samples, channels = pooled.shape[:2]
    if segments.dim() < 2 or segments.shape[0] != samples:
        raise UsageError(f"segments must have shape ({samples}, *spatial), got {tuple(segments.shape)}")
    _check_segments(segments, pooled.device)
    space = segments.shape[1:]
    out = _unpool(pooled, segments.reshape(samples, math.prod(space)), backend or _AUTO)
    out = out.reshape(samples, channels, *space)
    if base is None:
        return out
    if base.shape != out.shape:
        raise UsageError(f"base must have shape {tuple(out.shape)}, got {tuple(base.shape)}")
    return base + out
