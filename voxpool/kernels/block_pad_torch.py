"""Padding of blocks from their neighbours, in torch operations on any device.

Blocks are rows: high (n, *B, C) at full resolution and low (m, *B / 2, C) at half, C fastest. `index` (N, *G) says of
each place of the grid which block lies there: a number of `high`, or -1 - number of `low`; numbers run in raster order.
A plan lists where each padded element comes from; it is made once for a grid, a block's side and a padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Sides = tuple[int, ...]


class Padding(NamedTuple):
    """How blocks are padded.

    Attributes:
        side: Sides B of a block at full resolution, even.
        pad: Elements added at both ends of each axis, at most B / 2.
        replicate: Whether the image goes on beyond its border with its last elements, or with a value.
    """

    side: Sides
    pad: Sides
    replicate: bool


class Source(NamedTuple):
    """Which padded elements are copied, and from where: rows of flattened arrays.

    Attributes:
        target: Rows of the padded blocks, int64.
        source: Rows that they come from, (M,), or (M, 2^n) of which the mean is taken; int64.
    """

    target: Tensor
    source: Tensor


class Plan(NamedTuple):
    """Where the elements of the padding come from.

    Attributes:
        high_from_high: Copies.
        high_from_low: Copies of the nearest element.
        high_beyond: Rows of what lies outside the image.
        low_from_low: Copies.
        low_from_high: Means of the elements that one of the half resolution stands for.
        low_beyond: Rows of what lies outside the image.
    """

    high_from_high: Source
    high_from_low: Source
    high_beyond: Tensor
    low_from_low: Source
    low_from_high: Source
    low_beyond: Tensor


def make_plan(index: Tensor, padding: Padding) -> Plan:
    """Find where padding comes from.

    Args:
        index: What lies where, (N, *G), int32.
        padding: How blocks are padded.
    """
    high, low = (index >= 0).nonzero(), (index < 0).nonzero()
    fine = _shell(index, high, padding)
    coarse = _shell(index, low, padding._replace(side=tuple(each // 2 for each in padding.side)))
    return Plan(
        _source(fine, of_high=True, factor=1),
        _source(fine, of_high=False, factor=2),
        fine.beyond,
        _source(coarse, of_high=False, factor=1),
        _mean_source(coarse),
        coarse.beyond,
    )


def pad_blocks(high: Tensor, low: Tensor, padding: Padding, value: float, plan: Plan) -> tuple[Tensor, Tensor]:
    """Pad all blocks.

    Args:
        high: (n, *B, C).
        low: (m, *B / 2, C).
        padding: How.
        value: What lies outside the image, unless it goes on there.
        plan: See `make_plan`.

    Returns:
        (n, *(B + 2 pad), C) and (m, *(B / 2 + 2 pad), C).
    """
    padded = []
    sources: tuple[tuple[Tensor, Source, Source, Tensor], ...] = (
        (high, plan.high_from_high, plan.high_from_low, plan.high_beyond),
        (low, plan.low_from_high, plan.low_from_low, plan.low_beyond),
    )
    for blocks, from_high, from_low, beyond in sources:
        out = _framed(blocks, padding.pad)
        rows = out.view(-1, out.shape[-1])
        for (target, source), given in ((from_high, high), (from_low, low)):
            table = given.reshape(-1, given.shape[-1])
            if source.ndim == 2:
                found = sum((table.index_select(0, part) for part in source.T[1:]), table.index_select(0, source[:, 0]))
                found = found / source.shape[1]
            else:
                found = table.index_select(0, source)
            rows.index_copy_(0, target, found)
        rows.index_fill_(0, beyond, value)
        padded.append(out)
    return padded[0], padded[1]


def pad_blocks_backward(high: Tensor, low: Tensor, padding: Padding, plan: Plan) -> tuple[Tensor, Tensor]:
    """Gradients of the blocks from those of the padded ones.

    Args:
        high: Gradient (n, *(B + 2 pad), C).
        low: Gradient (m, *(B / 2 + 2 pad), C).
        padding: How they were padded.
        plan: That of the padding.

    Returns:
        (n, *B, C) and (m, *B / 2, C).
    """
    grads = [_inner(each, padding.pad).clone() for each in (high, low)]
    flat = [grad.view(-1, grad.shape[-1]) for grad in grads]
    for given, from_high, from_low in (
        (high, plan.high_from_high, plan.high_from_low),
        (low, plan.low_from_high, plan.low_from_low),
    ):
        rows = given.reshape(-1, given.shape[-1])
        for (target, source), grad in ((from_high, flat[0]), (from_low, flat[1])):
            values = rows.index_select(0, target)
            if source.ndim == 2:
                shares = source.shape[1]
                grad.index_add_(0, source.reshape(-1), (values / shares).repeat_interleave(shares, 0))
            else:
                grad.index_add_(0, source, values)
    return grads[0], grads[1]


def _framed(blocks: Tensor, pad: Sides) -> Tensor:
    count, *sides, channels = blocks.shape
    out = blocks.new_empty((count, *(side + 2 * p for side, p in zip(sides, pad, strict=True)), channels))
    _inner(out, pad).copy_(blocks)
    return out


def _inner(padded: Tensor, pad: Sides) -> Tensor:
    for axis, width in enumerate(pad):
        padded = padded.narrow(axis + 1, width, padded.shape[axis + 1] - 2 * width)
    return padded.contiguous() if padded.numel() == 0 else padded


class _Shell(NamedTuple):
    """The padding of some blocks, an element per row, and rows of what lies outside the image."""

    beyond: Tensor
    side: Sides
    target: Tensor  # its row among the padded elements
    found: Tensor  # what lies where it comes from: an entry of the index
    local: list[Tensor]  # its place in that block, per axis


def _shell(index: Tensor, places: Tensor, padding: Padding) -> _Shell:
    side, pad, replicate = padding
    device, dims = index.device, len(side)
    grid = index.shape[1:]
    padded = [s + 2 * p for s, p in zip(side, pad, strict=True)]
    # the places of the padding within a padded block, per axis
    axes = torch.meshgrid(*(torch.arange(size, device=device) for size in padded), indexing="ij")
    outside = torch.zeros(padded, dtype=torch.bool, device=device)
    for axis in range(dims):
        outside |= (axes[axis] < pad[axis]) | (axes[axis] >= pad[axis] + side[axis])
    chosen = outside.reshape(-1).nonzero()[:, 0]
    count = len(places)
    keep = torch.ones((count, len(chosen)), dtype=torch.bool, device=device)
    neighbour, local = [], []
    for axis in range(dims):
        own = axes[axis].reshape(-1)[chosen] - pad[axis]
        place = places[:, axis + 1, None] * side[axis] + own  # in the whole image
        last = grid[axis] * side[axis] - 1
        keep &= (place >= 0) & (place <= last) | replicate
        place = place.clamp(0, last)
        neighbour.append(place // side[axis])
        local.append(place % side[axis])
    sample = places[:, :1].expand(-1, len(chosen))
    target = torch.arange(count, device=device)[:, None] * outside.numel() + chosen
    found = index[(sample, *neighbour)].long()
    return _Shell(target[~keep], side, target[keep], found[keep], [each[keep] for each in local])


def _flat(local: list[Tensor], side: Sides) -> Tensor:
    row = local[0]
    for place, size in zip(local[1:], side[1:], strict=True):
        row = row * size + place
    return row


def _source(shell: _Shell, *, of_high: bool, factor: int) -> Source:
    """Copies from blocks of one resolution; `factor` is 2 from a coarser one."""
    wanted = shell.found >= 0 if of_high else shell.found < 0
    found = shell.found[wanted] if of_high else -1 - shell.found[wanted]
    sides = tuple(size // factor for size in shell.side)
    row = found * _size(sides) + _flat([each[wanted] // factor for each in shell.local], sides)
    return Source(shell.target[wanted], row)


def _mean_source(shell: _Shell) -> Source:
    """For blocks of half resolution from those of full: all elements that one stands for."""
    wanted = shell.found >= 0
    side = tuple(2 * size for size in shell.side)
    parts = []
    for number in range(2 ** len(side)):
        shifts = [number >> axis & 1 for axis in range(len(side))]
        moved = [2 * each[wanted] + shift for each, shift in zip(shell.local, shifts, strict=True)]
        parts.append(shell.found[wanted] * _size(side) + _flat(moved, side))
    return Source(shell.target[wanted], torch.stack(parts, 1))


def _size(side: Sides) -> int:
    return int(torch.Size(side).numel())
