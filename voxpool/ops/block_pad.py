"""Blocks of two resolutions: cut an image into them, pad each from its neighbours, put the image together again.

Verelst and Tuytelaars: SegBlocks: block-based dynamic resolution networks for real-time segmentation (2022). A grid
divides an image of (N, C, *S) into blocks, in 2D and 3D; a block is kept at full resolution or averaged to half of it.
Padding makes a convolution over single blocks the convolution over the image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.kernels import block_pad_cupy, block_pad_torch
from voxpool.kernels.block_pad_cupy import Places
from voxpool.kernels.block_pad_torch import Padding, Plan


class BlockGrid:
    """Which blocks of an image have full resolution.

    Args:
        high: Whether a block has full resolution, (N, *G), bool.

    Attributes:
        high: The same.
        index: (N, *G), int32: number of the block among those of full resolution, or -1 - number among the others;
            in raster order.
        num_high: Number of blocks of full resolution.
        num_low: Number of the others.
    """

    def __init__(self, high: Tensor) -> None:
        if high.dtype != torch.bool or high.ndim < 2:
            raise UsageError(f"a grid of blocks is bool of (N, *G), got {high.dtype} of {tuple(high.shape)}")
        self.high = high
        flat = high.reshape(-1)
        numbers = torch.where(flat, flat.cumsum(0) - 1, -(~flat).cumsum(0))
        self.index = numbers.to(torch.int32).view(high.shape)
        self.num_high = int(flat.sum())
        self.num_low = flat.numel() - self.num_high
        self._plans: dict[Padding, Plan] = {}
        self._places: Places | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Blocks along each axis of the image, G."""
        return tuple(self.high.shape[1:])

    def plan(self, padding: Padding) -> Plan:
        """Where padding comes from; kept, since the layers of a network ask the same again and again."""
        if padding not in self._plans:
            self._plans[padding] = block_pad_torch.make_plan(self.index, padding)
        return self._plans[padding]

    @property
    def places(self) -> Places:
        """The same for the kernels of a GPU, whatever the padding."""
        if self._places is None:
            self._places = Places.of(self.index)
        return self._places


def block_sample(x: Tensor, grid: BlockGrid) -> tuple[Tensor, Tensor]:
    """Cut an image into the blocks of a grid; those of half resolution are averaged.

    Args:
        x: (N, C, *S); every side a multiple of the grid's, and of twice the grid's where blocks are averaged.
        grid: Which blocks keep their resolution.

    Returns:
        high (n, C, *B) and low (m, C, *B / 2), channels-last in memory.

    Raises:
        UsageError: If the sides do not fit.

    Differentiable. Determinism: always the same bits.
    """
    side = block_side(x.shape[2:], grid.shape)
    if grid.num_low and any(size % 2 for size in side):
        raise UsageError(f"blocks of {side} elements cannot be halved; take another size of blocks")
    blocks = _cut(x, grid.shape, side)  # (N * G, *B, C)
    flat = grid.high.reshape(-1)
    high, low = blocks[flat.nonzero()[:, 0]], blocks[(~flat).nonzero()[:, 0]]
    return high.movedim(-1, 1), _halved(low).movedim(-1, 1)


def block_pad(
    high: Tensor, low: Tensor, grid: BlockGrid, pad: Sequence[int], *, replicate: bool = False, value: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pad every block with what lies around it in the image.

    A block of full resolution takes the nearest element of a neighbour of half resolution; a block of half resolution
    takes the means of 2 × 2 (2 × 2 × 2) elements of a neighbour of full resolution.

    Args:
        high: (n, C, *B).
        low: (m, C, *B / 2).
        grid: Where they lie.
        pad: Padding of each axis in elements, at most B / 2.
        replicate: Whether the image goes on beyond its border with its last elements.
        value: What lies beyond the border otherwise.

    Returns:
        (n, C, *(B + 2 pad)) and (m, C, *(B / 2 + 2 pad)), channels-last in memory.

    Raises:
        UsageError: If shapes do not fit, or the padding is larger than a block of half resolution.

    Differentiable. Determinism: forward and backward always the same bits; the backward gathers on a GPU, and adds in
    a fixed order on the CPU.
    """
    dims = high.ndim - 2
    side = _sides(high, low, grid)
    widths = tuple(int(each) for each in pad)
    if len(widths) != dims or any(not 0 <= p <= max(1, s // 2) for p, s in zip(widths, side, strict=True)):
        raise UsageError(f"padding must be {dims} numbers from 0 to half a block ({side}), got {widths}")
    rows = high.movedim(1, -1), low.movedim(1, -1)
    padded: tuple[Tensor, Tensor] = _BlockPad.apply(*rows, grid, Padding(side, widths, replicate), value)
    return padded[0].movedim(-1, 1), padded[1].movedim(-1, 1)


def block_combine(high: Tensor, low: Tensor, grid: BlockGrid, *, linear: bool = False) -> Tensor:
    """Put blocks together to an image of full resolution.

    Args:
        high: (n, C, *B).
        low: (m, C, *B / 2).
        grid: Where they lie.
        linear: Whether blocks of half resolution are enlarged linearly, across their borders, or each element to
            2 × 2 (2 × 2 × 2) equal ones.

    Returns:
        (N, C, *S), channels-last in memory.

    Raises:
        UsageError: If shapes do not fit.

    Differentiable. Determinism: always the same bits.
    """
    side = _sides(high, low, grid)
    if linear:
        enlarged = _enlarged(block_pad(high, low, grid, (1,) * len(side), replicate=True)[1], 2)
    else:
        enlarged = low
        for axis in range(2, low.ndim):
            enlarged = enlarged.repeat_interleave(2, axis)
    there = [blocks for blocks in (high, enlarged) if len(blocks)]
    both = torch.cat(there) if len(there) > 1 else there[0]
    # the blocks of full resolution come first in `both`
    rows = torch.where(grid.index >= 0, grid.index, -1 - grid.index + grid.num_high).reshape(-1).long()
    return _joined(both[rows], grid.high.shape, side)


def enlarge_blocks(high: Tensor, low: Tensor, grid: BlockGrid, factor: int, *, linear: bool) -> tuple[Tensor, Tensor]:
    """Enlarge every block as the whole image would be.

    Args:
        high: (n, C, *B).
        low: (m, C, *B / 2).
        grid: Where they lie.
        factor: A whole number.
        linear: Linearly, with what lies around a block; or each element to equal ones.

    Returns:
        (n, C, *factor B) and (m, C, *factor B / 2).
    """
    dims = high.ndim - 2
    if not linear:
        for axis in range(2, 2 + dims):
            high, low = high.repeat_interleave(factor, axis), low.repeat_interleave(factor, axis)
        return high, low
    padded = block_pad(high, low, grid, (1,) * dims, replicate=True)
    return _enlarged(padded[0], factor), _enlarged(padded[1], factor)


def _enlarged(padded: Tensor, factor: int) -> Tensor:
    """Blocks enlarged linearly, of blocks that are padded by one element."""
    if not len(padded):
        return padded.new_zeros((0, padded.shape[1], *(factor * (size - 2) for size in padded.shape[2:])))
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[padded.ndim]
    large = functional.interpolate(padded, scale_factor=float(factor), mode=mode, align_corners=False)
    for axis in range(2, padded.ndim):
        large = large.narrow(axis, factor, large.shape[axis] - 2 * factor)
    return large


def block_side(size: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Sides of a block of an image of a size.

    Raises:
        UsageError: If the grid does not divide the image.
    """
    if len(size) != len(grid) or any(s % g for s, g in zip(size, grid, strict=True)):
        raise UsageError(f"a grid of {tuple(grid)} blocks does not divide {tuple(size)}; pad the image first")
    return tuple(s // g for s, g in zip(size, grid, strict=True))


class _BlockPad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, high: Tensor, low: Tensor, grid: BlockGrid, padding: Padding, value: float
    ) -> tuple[Tensor, Tensor]:
        ctx.grid, ctx.padding = grid, padding
        if block_pad_cupy.serves(high):
            return block_pad_cupy.pad_blocks(high, low, grid.places, padding, value)
        return block_pad_torch.pad_blocks(high, low, padding, value, grid.plan(padding))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        high, low = (grad.contiguous() for grad in grads)
        grid, padding = ctx.grid, ctx.padding
        if block_pad_cupy.serves(high):
            found = block_pad_cupy.pad_blocks_backward(high, low, grid.places, padding)
        else:
            found = block_pad_torch.pad_blocks_backward(high, low, padding, grid.plan(padding))
        return (*found, None, None, None)


def _sides(high: Tensor, low: Tensor, grid: BlockGrid) -> tuple[int, ...]:
    """Sides of a block of full resolution, from whichever there are."""
    side = tuple(high.shape[2:]) if len(high) else tuple(2 * size for size in low.shape[2:])
    half = tuple(size // 2 for size in side)
    wrong = (len(high), len(low)) != (grid.num_high, grid.num_low) or len(side) != len(grid.shape)
    if wrong or (len(low) and tuple(low.shape[2:]) != half):
        raise UsageError(
            f"blocks of {tuple(high.shape)} and {tuple(low.shape)} do not fit a grid with {grid.num_high} of full and"
            f" {grid.num_low} of half resolution"
        )
    return side


def _cut(x: Tensor, grid: Sequence[int], side: Sequence[int]) -> Tensor:
    """(N, C, *S) as (N * G, *B, C)."""
    dims = len(grid)
    split = x.reshape(*x.shape[:2], *(n for pair in zip(grid, side, strict=True) for n in pair))
    order = [0, *range(2, 2 + 2 * dims, 2), *range(3, 3 + 2 * dims, 2), 1]
    return split.permute(order).reshape(-1, *side, x.shape[1])


def _joined(blocks: Tensor, grid: Sequence[int], side: Sequence[int]) -> Tensor:
    """(N * G, C, *B) as (N, C, *S), channels-last in memory."""
    dims, channels = len(side), blocks.shape[1]
    split = blocks.movedim(1, -1).reshape(*grid, *side, channels)
    order = [0, *(place for axis in range(dims) for place in (1 + axis, 1 + dims + axis)), 1 + 2 * dims]
    size = [g * s for g, s in zip(grid[1:], side, strict=True)]
    return split.permute(order).reshape(grid[0], *size, channels).movedim(-1, 1)


def _halved(blocks: Tensor) -> Tensor:
    """(m, *B, C) averaged to (m, *B / 2, C)."""
    count, *side, channels = blocks.shape
    pairs = blocks.reshape(count, *(n for size in side for n in (size // 2, 2)), channels)
    return pairs.mean(tuple(range(2, 2 + 2 * len(side), 2)))
