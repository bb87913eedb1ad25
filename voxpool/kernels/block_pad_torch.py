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
    """Where the elements of the padding come from; what is nowhere in it lies outside the image.

    Attributes:
        high_from_high: Copies.
        high_from_low: Copies of the nearest element.
        low_from_low: Copies.
        low_from_high: Means of the elements that one of the half resolution stands for.
    """

    high_from_high: Source
    high_from_low: Source
    low_from_low: Source
    low_from_high: Source


def make_plan(index: Tensor, padding: Padding) -> Plan:
    """Find where padding comes from.

    Args:
        index: What lies where, (N, *G), int32.
        padding: How blocks are padded.
    """
    coarse = padding._replace(side=tuple(each // 2 for each in padding.side))
    high, low = (index >= 0).nonzero(), (index < 0).nonzero()
    return Plan(
        _source(index, high, padding, of_high=True, factor=1),
        _source(index, high, padding, of_high=False, factor=2),
        _source(index, low, coarse, of_high=False, factor=1),
        _mean_source(index, low, coarse),
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
    sources: tuple[tuple[Tensor, Source, Source], ...] = (
        (high, plan.high_from_high, plan.high_from_low),
        (low, plan.low_from_high, plan.low_from_low),
    )
    for blocks, from_high, from_low in sources:
        out = _framed(blocks, padding.pad, value)
        rows = out.view(-1, out.shape[-1])
        for (target, source), given in ((from_high, high), (from_low, low)):
            found = given.reshape(-1, given.shape[-1])[source]
            rows[target] = found.mean(1) if source.ndim == 2 else found
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
            values = rows[target]
            if source.ndim == 2:
                shares = source.shape[1]
                grad.index_add_(0, source.reshape(-1), (values / shares).repeat_interleave(shares, 0))
            else:
                grad.index_add_(0, source, values)
    return grads[0], grads[1]


def _framed(blocks: Tensor, pad: Sides, value: float) -> Tensor:
    count, *sides, channels = blocks.shape
    out = blocks.new_full((count, *(side + 2 * p for side, p in zip(sides, pad, strict=True)), channels), value)
    _inner(out, pad).copy_(blocks)
    return out


def _inner(padded: Tensor, pad: Sides) -> Tensor:
    for axis, width in enumerate(pad):
        padded = padded.narrow(axis + 1, width, padded.shape[axis + 1] - 2 * width)
    return padded.contiguous() if padded.numel() == 0 else padded


class _Shell(NamedTuple):
    """The padding of some blocks: an element per row."""

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
    return _Shell(target[keep], found[keep], [each[keep] for each in local])


def _flat(local: list[Tensor], side: Sides) -> Tensor:
    row = local[0]
    for place, size in zip(local[1:], side[1:], strict=True):
        row = row * size + place
    return row


def _source(index: Tensor, places: Tensor, padding: Padding, *, of_high: bool, factor: int) -> Source:
    """Copies for blocks of one resolution from blocks of one; `factor` is 2 from a coarser one."""
    target, found, local = _shell(index, places, padding)
    wanted = found >= 0 if of_high else found < 0
    found = found[wanted] if of_high else -1 - found[wanted]
    sides = tuple(size // factor for size in padding.side)
    row = found * _size(sides) + _flat([each[wanted] // factor for each in local], sides)
    return Source(target[wanted], row)


def _mean_source(index: Tensor, places: Tensor, padding: Padding) -> Source:
    """For blocks of half resolution from those of full: all elements that one stands for."""
    target, found, local = _shell(index, places, padding)
    wanted = found >= 0
    half = padding.side
    side = tuple(2 * size for size in half)
    parts = []
    for number in range(2 ** len(half)):
        shifts = [number >> axis & 1 for axis in range(len(half))]
        moved = [2 * each[wanted] + shift for each, shift in zip(local, shifts, strict=True)]
        parts.append(found[wanted] * _size(side) + _flat(moved, side))
    return Source(target[wanted], torch.stack(parts, 1))


def _size(side: Sides) -> int:
    return int(torch.Size(side).numel())
