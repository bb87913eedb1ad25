"""Pool voxels into supervoxels and back, over any number of spatial axes.

`segment_pool` reduces every channel of a feature map over each segment, eq. (1) of the superpixel pooling paper;
`segment_unpool` paints pooled values back. Both flatten space and call the custom ops.
"""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels.layout import is_channels_last
from voxpool.ops import custom_ops
from voxpool.ops.checks import check_num_segments, check_segments, check_values
from voxpool.ops.supervoxels import Supervoxels

Reduce = Literal["max", "mean", "sum"]


@overload
def segment_pool(
    x: Tensor,
    segments: Tensor | Supervoxels,
    num_segments: int | None = ...,
    *,
    reduce: Reduce = ...,
    return_argmax: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def segment_pool(
    x: Tensor,
    segments: Tensor | Supervoxels,
    num_segments: int | None = ...,
    *,
    reduce: Literal["max"] = ...,
    return_argmax: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def segment_pool(
    x: Tensor,
    segments: Tensor | Supervoxels,
    num_segments: int | None = None,
    *,
    reduce: Reduce = "max",
    return_argmax: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce every channel over each supervoxel: eq. (1) of the superpixel pooling paper, in 2D, 3D or any D.

    A NaN wins the maximum of its segment, equal values go to the lowest index (also for the gradient), and an
    empty segment gives 0. Sums and means are accumulated in float64 on the CPU, and by "cupy" in float32 along a
    fixed tree (float64 in float64), and then rounded to the dtype of `x`.
    Differentiable in `x` any number of times; works under `torch.vmap`, `torch.compile` and autocast.
    `torch.func.grad` does not reach through torch's custom ops: take `torch.autograd.grad`.

    Determinism: equal bits from run to run, on the CPU for any number of threads, and on CUDA with the backend
    "cupy". Where "torch" pools on CUDA, sums and means need `torch.use_deterministic_algorithms(True)` for equal
    last bits.

    Args:
        x: Values, shape (N, C, *S) with at least one spatial axis; float16, bfloat16, float32 or float64.
        segments: Supervoxel ids, shape (N, *S), 0..num_segments-1 or -1 (ignored); int32, or int64 at the
            price of a copy. On the CPU ids are checked; on other devices, where that would wait for the
            device, a wrong id is ignored like -1. Or `Supervoxels`, checked and prepared for many calls.
        num_segments: Number of segments K, a Python int; it may exceed the ids that occur. Left out with
            `Supervoxels`.
        reduce: "max", "mean" or "sum".
        return_argmax: With "max": return also where in flattened space each maximum lies.
        backend: "numba" (CPU), "cupy" (CUDA), "torch" or "ndimage" (the slow reference); None takes the first
            that fits.

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
    check_values("x", x)
    ids, count, options = _unpack(segments, num_segments, x.shape[:1] + x.shape[2:], x.device, backend)
    size = math.prod(x.shape[2:])
    flat = x.reshape(x.shape[0], x.shape[1], size)  # (N, C, P)
    flat_ids = ids.reshape(x.shape[0], size)  # (N, P)
    if reduce == "max":
        pooled, argmax = custom_ops.segment_max(flat, flat_ids, count, *options)
        return (pooled, argmax) if return_argmax else pooled
    if reduce == "mean":
        return custom_ops.segment_mean(flat, flat_ids, count, *options)[0]
    return custom_ops.segment_sum(flat, flat_ids, count, *options)


def segment_unpool(
    pooled: Tensor, segments: Tensor | Supervoxels, base: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Give every voxel the value of its supervoxel: `base + pooled[..., segments]`.

    The adjoint of `segment_pool(..., reduce="sum")`. Differentiable in `pooled` and `base`, any number of
    times.

    Determinism: as `segment_pool`; the gradient is a sum.

    Args:
        pooled: Values per segment, shape (N, C, K); float16, bfloat16, float32 or float64.
        segments: Supervoxel ids, shape (N, *S), 0..K-1, int32 or int64; a voxel with id -1 gets 0. Or
            `Supervoxels`.
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
    given = segments.segments if isinstance(segments, Supervoxels) else segments
    if given.dim() < 2:
        raise UsageError(f"segments must have shape (N, *spatial), got {tuple(given.shape)}")
    samples, channels, num_segments = pooled.shape
    space = given.shape[1:]
    check_values("pooled", pooled)
    if isinstance(segments, Supervoxels) and num_segments != segments.num_segments:
        raise UsageError(f"pooled must have {segments.num_segments} segments as the supervoxels, got {num_segments}")
    count = None if isinstance(segments, Supervoxels) else num_segments
    ids, _, options = _unpack(segments, count, torch.Size((samples, *space)), pooled.device, backend)
    if base is not None and base.shape != (samples, channels, *space):
        raise UsageError(f"base must have shape {(samples, channels, *space)}, got {tuple(base.shape)}")
    size = math.prod(space)
    # another dtype of the base decides the result's, as in any sum of tensors
    fused = base is not None and base.dtype == pooled.dtype
    flat_base = base.reshape(samples, channels, size) if fused and base is not None else None
    channels_last = flat_base is not None and is_channels_last(flat_base)
    flat = custom_ops.unpool(pooled, ids.reshape(samples, size), flat_base, channels_last, *options)  # (N, C, P)
    out = flat.reshape(samples, channels, *space)
    return out if base is None or fused else base + out


def _unpack(
    segments: Tensor | Supervoxels,
    num_segments: int | None,
    shape: torch.Size,
    device: torch.device,
    backend: str | None,
) -> tuple[Tensor, int, tuple[Tensor, list[int], bool, str]]:
    """Ids, their number, and the options of the ops: plan, sizes of its parts, whether ids are checked, backend."""
    if not isinstance(segments, Supervoxels):
        check_segments(segments, shape, device)
        if num_segments is None:
            raise UsageError("num_segments is missing; pass it, or Supervoxels in place of segments")
        check_num_segments(num_segments)
        return segments, num_segments, (segments.new_empty(0), [], False, backend or custom_ops.AUTO)
    if num_segments is not None and num_segments != segments.num_segments:
        raise UsageError(
            f"num_segments must be left out with Supervoxels of {segments.num_segments}, got {num_segments}"
        )
    check_segments(segments.segments, shape, device)
    # a plan serves the backend that made it, and no dtype is pooled by another one on the same device
    if backend in (None, segments.backend):
        plan, sizes = segments.plan, list(segments.sizes)
    else:
        plan, sizes = segments.plan.new_empty(0), []
    return segments.segments, segments.num_segments, (plan, sizes, True, backend or custom_ops.AUTO)
