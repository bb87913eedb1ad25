"""Pool voxels into supervoxels and back: torch custom ops over any number of spatial axes.

`segment_pool` reduces every channel of a feature map over each segment, eq. (1) of the superpixel pooling
paper; `segment_unpool` paints pooled values back. Both flatten space and call the custom ops below, whose
derivatives are again these ops, so that they can be differentiated as often as wanted.
"""

import math
from typing import Any, Literal, overload

import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels import registry

Reduce = Literal["max", "mean", "sum"]
Gradients = tuple[Tensor | None, ...]

# A custom op takes no `str | None`; the empty name stands for "the first backend that fits".
_AUTO = ""


def _narrow(segments: Tensor, num_segments: int) -> Tensor:
    """Bring ids to int32, so that wrong ones, which pass unchecked outside the CPU, stay wrong."""
    if segments.dtype == torch.int64:
        # The conversion alone would turn 2**32 into segment 0.
        segments = segments.clamp(-1, num_segments)
    return segments.to(torch.int32)


def _kernel_inputs(values: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Check the ids where that waits for no device, and bring both tensors into the kernels' layout."""
    if segments.device.type == "cpu" and segments.numel() > 0:
        low, high = (int(bound) for bound in segments.aminmax())
        if low < -1 or high >= num_segments:
            raise UsageError(
                f"segments must hold ids from -1 (ignored) to num_segments - 1 = {num_segments - 1}, "
                f"got ids from {low} to {high}; pass the right num_segments or use compact_segments"
            )
    return values.contiguous(), _narrow(segments, num_segments).contiguous()


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


def _max_backward(ctx: Any, grad: Tensor, _grad_argmax: Tensor) -> Gradients:
    (argmax,) = ctx.saved_tensors
    zeros = grad.new_zeros((grad.shape[0], grad.shape[1], ctx.size))
    if ctx.size == 0:
        return zeros, None, None, None
    # A voxel is the maximum of at most one segment, so no gradients meet; empty segments add 0 to voxel 0.
    grad = grad.masked_fill(argmax < 0, 0)
    return zeros.scatter_add(2, argmax.clamp(min=0), grad), None, None, None


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.backend = inputs[3]


def _sum_backward(ctx: Any, grad: Tensor) -> Gradients:
    return _unpool(grad, ctx.saved_tensors[0], ctx.backend), None, None, None


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], output[1])
    ctx.backend = inputs[3]


def _mean_backward(ctx: Any, grad: Tensor, _grad_counts: Tensor) -> Gradients:
    segments, counts = ctx.saved_tensors
    # Half precision cannot hold large counts (bfloat16: above 256), so the quotient is taken in float32.
    wide = torch.promote_types(grad.dtype, torch.float32)
    share = (grad.to(wide) / counts.clamp(min=1).to(wide).unsqueeze(1)).to(grad.dtype)
    return _unpool(share, segments, ctx.backend), None, None, None


def _save_unpool(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.num_segments = inputs[0].shape[2]
    ctx.backend = inputs[2]


def _unpool_backward(ctx: Any, grad: Tensor) -> Gradients:
    return _segment_sum(grad, ctx.saved_tensors[0], ctx.num_segments, ctx.backend), None, None


_segment_max.register_autograd(_max_backward, setup_context=_save_max)
_segment_sum.register_autograd(_sum_backward, setup_context=_save_sum)
_segment_mean.register_autograd(_mean_backward, setup_context=_save_mean)
_unpool.register_autograd(_unpool_backward, setup_context=_save_unpool)


def _fold(info: Any, in_dims: tuple[Any, ...], values: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, int]:
    """Hide the mapped axis in the channels when all calls share the segments, else in the samples.

    Returns:
        Values (N, C, ...) and segments (N, P) for one call of the op, and which axis hides the mapped one.
    """
    if in_dims[1] is None:
        return values.movedim(in_dims[0], 1).flatten(1, 2), segments, 1
    size = info.batch_size
    values = values.expand(size, *values.shape) if in_dims[0] is None else values.movedim(in_dims[0], 0)
    return values.flatten(0, 1), segments.movedim(in_dims[1], 0).flatten(0, 1), 0


def _unfold(info: Any, folded: Tensor, axis: int) -> Tensor:
    return folded.unflatten(axis, (info.batch_size, folded.shape[axis] // info.batch_size))


@_segment_max.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, segments: Tensor, num_segments: int, backend: str) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    pooled, argmax = _segment_max(x, segments, num_segments, backend)
    return (_unfold(info, pooled, axis), _unfold(info, argmax, axis)), (axis, axis)


@_segment_sum.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, segments: Tensor, num_segments: int, backend: str) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    return _unfold(info, _segment_sum(x, segments, num_segments, backend), axis), axis


@_segment_mean.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, segments: Tensor, num_segments: int, backend: str) -> Any:
    x, segments, axis = _fold(info, in_dims, x, segments)
    means, counts = _segment_mean(x, segments, num_segments, backend)
    if axis == 1:
        return (_unfold(info, means, axis), counts), (axis, None)
    return (_unfold(info, means, axis), _unfold(info, counts, axis)), (axis, axis)


@_unpool.register_vmap
def _(info: Any, in_dims: Any, pooled: Tensor, segments: Tensor, backend: str) -> Any:
    pooled, segments, axis = _fold(info, in_dims, pooled, segments)
    return _unfold(info, _unpool(pooled, segments, backend), axis), axis


def _check_values(name: str, values: Tensor) -> None:
    if values.dtype not in registry.FLOAT_DTYPES:
        wanted = ", ".join(str(dtype) for dtype in registry.FLOAT_DTYPES)
        raise UsageError(f"{name} must be one of {wanted}, got {values.dtype}; use {name}.float()")


def _check_segments(segments: Tensor, shape: torch.Size, device: torch.device) -> None:
    if segments.shape != shape:
        raise UsageError(f"segments must have shape {tuple(shape)}, got {tuple(segments.shape)}")
    if segments.dtype not in (torch.int32, torch.int64):
        raise UsageError(f"segments must be torch.int32 or torch.int64, got {segments.dtype}; use segments.int()")
    if segments.device != device:
        raise UsageError(f"segments must be on {device} as the values are, got {segments.device}")


def _check_num_segments(num_segments: int) -> None:
    # A tensor is refused rather than converted: reading it would make the host wait for the device.
    if isinstance(num_segments, bool) or not isinstance(num_segments, (int, torch.SymInt)):
        found = type(num_segments).__name__
        raise UsageError(f"num_segments must be a Python int, got {found}; keep the number beside the segments")
    if num_segments < 0:
        raise UsageError(f"num_segments must be 0 or more, got {num_segments}")


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
    """Reduce every channel over each supervoxel: eq. (1) of the superpixel pooling paper, in 2D, 3D or any D.

    A NaN wins the maximum of its segment, equal values go to the lowest index (also for the gradient), and an
    empty segment gives 0. Sums and means are accumulated in float64 and then rounded to the dtype of `x`.
    Differentiable in `x` any number of times; works under `torch.vmap`, `torch.compile` and autocast.
    `torch.func.grad` does not reach through torch's custom ops: take `torch.autograd.grad`.

    Determinism: equal bits from run to run on the CPU, for any number of threads. On CUDA the maximum and its
    gradient too; sums and means need `torch.use_deterministic_algorithms(True)` for equal last bits.

    Args:
        x: Values, shape (N, C, *S) with at least one spatial axis; float16, bfloat16, float32 or float64.
        segments: Supervoxel ids, shape (N, *S), 0..num_segments-1 or -1 (ignored); int32, or int64 at the
            price of a copy. On the CPU ids are checked; on other devices, where that would wait for the
            device, a wrong id is ignored like -1.
        num_segments: Number of segments K, a Python int; it may exceed the ids that occur.
        reduce: "max", "mean" or "sum".
        return_argmax: With "max": return also where in flattened space each maximum lies.
        backend: "numba", "torch" or "ndimage" (the slow reference); None takes the first that fits.

    Returns:
        Pooled values, shape (N, C, K), dtype of `x`. With `return_argmax` also the positions, shape
        (N, C, K), int64, -1 for an empty segment.

    Raises:
        UsageError: If a shape, dtype, device, id or option does not fit, or no backend does.

    Example:
        >>> x = torch.tensor([[[1.0, 5.0, 2.0, 4.0]]])
        >>> segments = torch.tensor([[0, 0, 1, -1]], dtype=torch.int32)
        >>> segment_pool(x, segments, 3)
        tensor([[[5., 2., 0.]]])
    """
    if x.dim() < 3:
        raise UsageError(f"x must have shape (N, C, *spatial), got {tuple(x.shape)}")
    if reduce not in ("max", "mean", "sum"):
        raise UsageError(f'reduce must be "max", "mean" or "sum", got {reduce!r}')
    if return_argmax and reduce != "max":
        raise UsageError(f'return_argmax needs reduce="max", got reduce={reduce!r}')
    _check_values("x", x)
    _check_segments(segments, x.shape[:1] + x.shape[2:], x.device)
    _check_num_segments(num_segments)
    size = math.prod(x.shape[2:])
    flat_x = x.reshape(x.shape[0], x.shape[1], size)  # (N, C, P)
    flat_segments = segments.reshape(x.shape[0], size)  # (N, P)
    if reduce == "max":
        pooled, argmax = _segment_max(flat_x, flat_segments, num_segments, backend or _AUTO)
        return (pooled, argmax) if return_argmax else pooled
    if reduce == "mean":
        return _segment_mean(flat_x, flat_segments, num_segments, backend or _AUTO)[0]
    return _segment_sum(flat_x, flat_segments, num_segments, backend or _AUTO)


def segment_unpool(
    pooled: Tensor, segments: Tensor, base: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Give every voxel the value of its supervoxel: `base + pooled[..., segments]`.

    The adjoint of `segment_pool(..., reduce="sum")`. Differentiable in `pooled` and `base`, any number of
    times.

    Determinism: as `segment_pool`; the gradient is a sum.

    Args:
        pooled: Values per segment, shape (N, C, K); float16, bfloat16, float32 or float64.
        segments: Supervoxel ids, shape (N, *S), 0..K-1, int32 or int64; a voxel with id -1 gets 0.
        base: Added to the result if given, shape (N, C, *S).
        backend: As in `segment_pool`.

    Returns:
        Values per voxel, shape (N, C, *S).

    Raises:
        UsageError: If a shape, dtype, device or id does not fit, or no backend does.

    Example:
        >>> segments = torch.tensor([[0, 0, 1, -1]], dtype=torch.int32)
        >>> segment_unpool(torch.tensor([[[5.0, 2.0]]]), segments)
        tensor([[[5., 5., 2., 0.]]])
    """
    if pooled.dim() != 3:
        raise UsageError(f"pooled must have shape (N, C, K), got {tuple(pooled.shape)}")
    if segments.dim() < 2:
        raise UsageError(f"segments must have shape (N, *spatial), got {tuple(segments.shape)}")
    samples, channels = pooled.shape[:2]
    space = segments.shape[1:]
    _check_values("pooled", pooled)
    _check_segments(segments, torch.Size((samples, *space)), pooled.device)
    if base is not None and base.shape != (samples, channels, *space):
        raise UsageError(f"base must have shape {(samples, channels, *space)}, got {tuple(base.shape)}")
    flat = _unpool(pooled, segments.reshape(samples, math.prod(space)), backend or _AUTO)  # (N, C, P)
    out = flat.reshape(samples, channels, *space)
    return out if base is None else base + out
