"""How functions of windows run on blocks of two resolutions, block by block, with what lies around each.

A rule gives NotImplemented where a block's share of the result cannot be computed from the block and its padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from voxpool.ops.block_pad import enlarge_blocks

Function = Callable[..., Any]


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return (int(value),) * dims if isinstance(value, int) else tuple(int(each) for each in value)


def _windows(
    x: Any,
    apply: Callable[[Tensor], Tensor],
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    value: float,
    *,
    up: bool = False,
) -> Any:
    """A function of windows, block by block, where every block gives its share of the result.

    `up`: a last window that is not whole counts too; then there must be none.
    """
    half = x.low.shape[2:]
    for side in [each.shape[2:] for each in (x.high, x.low) if len(each)]:
        for size, k, s, p in zip(side, kernel, stride, pad, strict=True):
            if size % s or (size + 2 * p - k) // s + 1 != size // s or (up and (size + 2 * p - k) % s):
                return NotImplemented
    if any(p > h for p, h in zip(pad, half, strict=True)):
        return NotImplemented
    high, low = x.padded(pad, value=value) if any(pad) else (x.high, x.low)
    return x.like(*(of_some(apply, blocks) for blocks in (high, low)))


def of_some(apply: Callable[[Tensor], Tensor], blocks: Tensor) -> Tensor:
    """A function of blocks; where there are none they stay as they are, as some functions refuse an empty batch."""
    return apply(blocks) if len(blocks) else blocks


def _convolve(function: Function, dims: int) -> Function:
    def rule(
        x: Any,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if isinstance(padding, str):
            return NotImplemented
        steps, pads, wide = _tuple(stride, dims), _tuple(padding, dims), _tuple(dilation, dims)
        reach = [d * (k - 1) + 1 for d, k in zip(wide, weight.shape[2:], strict=True)]
        return _windows(
            x, lambda blocks: function(blocks, weight, bias, steps, 0, wide, groups), reach, steps, pads, 0.0
        )

    return rule


def _convolve_up(function: Function, dims: int) -> Function:
    def rule(  # noqa: PLR0917 - torch's own arguments
        x: Any,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        steps, pads, more = _tuple(stride, dims), _tuple(padding, dims), _tuple(output_padding, dims)
        kernel = weight.shape[2:]
        exact = all(k + o - 2 * p == s for k, o, p, s in zip(kernel, more, pads, steps, strict=True))
        if not exact or any(each != 1 for each in _tuple(dilation, dims)):
            return NotImplemented
        # how far elements around a block reach into what comes of it
        reach = [max(-(-(k - 1 - p) // s), (s - 1 + p) // s) for k, s, p in zip(kernel, steps, pads, strict=True)]
        if any(r > h for r, h in zip(reach, x.low.shape[2:], strict=True)):
            return NotImplemented

        def enlarge(blocks: Tensor) -> Tensor:
            large = function(blocks, weight, bias, steps, 0, 0, groups)
            for axis in range(dims):
                inner = steps[axis] * (blocks.shape[axis + 2] - 2 * reach[axis])
                start = steps[axis] * reach[axis] + pads[axis]
                short = start + inner - large.shape[axis + 2]
                if short > 0:  # beyond the last tap only the bias is there
                    widths = [0] * (2 * (dims - 1 - axis)) + [0, short]
                    beyond = functional.pad(torch.zeros_like(large), widths, value=1.0)
                    large = functional.pad(large, widths)
                    if bias is not None:
                        large = large + beyond * bias.view(-1, *[1] * dims)
                large = large.narrow(axis + 2, start, inner)
            return large

        high, low = x.padded(reach) if any(reach) else (x.high, x.low)
        return x.like(*(of_some(enlarge, blocks) for blocks in (high, low)))

    return rule


def _pool_max(dims: int) -> Function:
    function = {2: functional.max_pool2d, 3: functional.max_pool3d}[dims]

    def rule(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        kernel, pads = _tuple(kernel_size, dims), _tuple(padding, dims)
        steps = kernel if stride is None or stride == [] else _tuple(stride, dims)
        # places of maxima are those of the whole map
        if return_indices or any(each != 1 for each in _tuple(dilation, dims)):
            return NotImplemented
        return _windows(
            x, lambda blocks: function(blocks, kernel, steps), kernel, steps, pads, -torch.inf, up=ceil_mode
        )

    return rule


def _pool_mean(function: Function, dims: int) -> Function:
    def rule(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        kernel, pads = _tuple(kernel_size, dims), _tuple(padding, dims)
        steps = kernel if stride is None or stride == [] else _tuple(stride, dims)
        if (any(pads) and not count_include_pad) or divisor_override:
            return NotImplemented
        return _windows(x, lambda blocks: function(blocks, kernel, steps), kernel, steps, pads, 0.0, up=ceil_mode)

    return rule


def _interpolate(
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **options: Any,
) -> Any:
    dims = x.ndim - 2
    now = x.shape[2:]
    if size is None:
        factors = [scale_factor] * dims if isinstance(scale_factor, (int, float)) else list(scale_factor)
    else:
        factors = [new / old for new, old in zip(_tuple(size, dims), now, strict=True)]
    whole = int(factors[0])
    known = mode in ("nearest", "nearest-exact", "bilinear", "trilinear")
    if not known or align_corners or whole < 1 or any(each != whole for each in factors):
        return NotImplemented
    if whole == 1:
        return x
    return x.like(*enlarge_blocks(x.high, x.low, x.grid, whole, linear="linear" in mode))


def _batch_norm(  # noqa: PLR0917 - torch's own arguments
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Statistics of the whole image: an element of half resolution counts for those that it stands for."""
    if not training:
        return x.each(lambda blocks: functional.batch_norm(blocks, running_mean, running_var, weight, bias, eps=eps))
    over = (0, *range(2, x.ndim))
    # where all are of half resolution, they are the image
    area = 2 ** (x.ndim - 2) if x.grid.num_high else 1
    count = x.high.numel() // x.high.shape[1] + area * (x.low.numel() // x.low.shape[1])
    mean = (x.high.sum(over) + area * x.low.sum(over)) / count
    shape = (1, -1, *[1] * (x.ndim - 2))
    squares = ((x.high - mean.view(shape)) ** 2).sum(over) + area * ((x.low - mean.view(shape)) ** 2).sum(over)
    variance = squares / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(variance.detach() * count / max(1, count - 1), momentum)
    factor = torch.rsqrt(variance + eps) * (1 if weight is None else weight)
    shift = -mean * factor + (0 if bias is None else bias)
    return x.each(lambda blocks: blocks * factor.view(shape) + shift.view(shape))


WINDOW_RULES: dict[Function, Function] = {
    torch.conv2d: _convolve(torch.conv2d, 2),
    torch.conv3d: _convolve(torch.conv3d, 3),
    torch.conv_transpose2d: _convolve_up(torch.conv_transpose2d, 2),
    torch.conv_transpose3d: _convolve_up(torch.conv_transpose3d, 3),
    functional.max_pool2d: _pool_max(2),
    functional.max_pool3d: _pool_max(3),
    torch.max_pool2d: _pool_max(2),
    torch.max_pool3d: _pool_max(3),
    functional.avg_pool2d: _pool_mean(functional.avg_pool2d, 2),
    functional.avg_pool3d: _pool_mean(functional.avg_pool3d, 3),
    functional.interpolate: _interpolate,
    functional.batch_norm: _batch_norm,
}
"""What is computed in place of torch's functions; the first argument is a `voxpool.layers.blocks.Blocks`."""
