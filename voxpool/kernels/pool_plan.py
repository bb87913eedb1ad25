"""The order in which the CUDA kernels visit the voxels, made with torch operations on any device.

Voxels of one tile are sorted by segment: a warp that reads them in that order stays within a few kilobytes of each
channel, and the voxels of a segment come one after another. The kernels of `cuda/pool.cu` read it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from voxpool.errors import UsageError

CHUNK = 256
"""Voxels that one warp reduces: 8 for each of its 32 lanes, as in `cuda/pool.cu`."""

FAN_IN = 64
"""Partials that one thread joins one after another."""

_TILES = {1: (2048,), 2: (16, 64), 3: (8, 8, 32)}


class Plan(NamedTuple):
    """How to pool the voxels of segments (N, P) into K segments each.

    A chunk is at most `CHUNK` consecutive sorted voxels of one tile, a piece a run of one segment in a chunk. There are
    M voxels inside a segment, Q pieces and H chunks.

    Attributes:
        voxels: n * P + p of every voxel inside a segment, sorted by (n, tile, segment, p); (M,) int32.
        piece_start: Where each piece starts in `voxels`, and M; (Q + 1,) int32.
        piece_row: The piece's rank when pieces are sorted by segment n * K + k, then as they are; (Q,) int32.
        chunk_piece: The first piece of each chunk, and Q; (H + 1,) int32.
        counts: Voxels of each segment n * K + k; (N * K,) int32.
        levels: How to join the partials: `levels[0]` cuts the pieces in the order of `piece_row` into groups of one
            segment, the next level those groups, and so on; the last level's groups are the segments n * K + k. Each
            holds the start of every group, and the end of the last; int32. Groups of all levels but the last have at
            most `FAN_IN` members.
    """

    voxels: Tensor
    piece_start: Tensor
    piece_row: Tensor
    chunk_piece: Tensor
    counts: Tensor
    levels: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> "Plan":
        """Name the tensors that `make` returned."""
        voxels, piece_start, piece_row, chunk_piece, counts, *levels = tensors
        return cls(voxels, piece_start, piece_row, chunk_piece, counts, tuple(levels))

    def tensors(self) -> list[Tensor]:
        """The plan as a plain list, the form in which it passes through torch's custom ops."""
        return [*self[:-1], *self.levels]


def _tiles(space: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """Number of the tile of each voxel (P,), and how many tiles there are. Axes before the last three are not tiled."""
    edges = (1,) * (len(space) - 3) + _TILES[min(len(space), 3)]
    tile = torch.zeros((1,) * len(space), dtype=torch.int64, device=device)
    for axis, (length, edge) in enumerate(zip(space, edges, strict=True)):
        step = torch.arange(length, device=device).div(edge, rounding_mode="floor")
        tile = tile * -(-length // edge) + step.reshape((-1,) + (1,) * (len(space) - 1 - axis))
    return tile.expand(space).flatten(), math.prod(
        -(-length // edge) for length, edge in zip(space, edges, strict=True)
    )


def _nth(running: Tensor, count: int) -> Tensor:
    """Where a running count of marks reaches 1, 2, ..., count."""
    return torch.searchsorted(running, torch.arange(1, count + 1, device=running.device))


def _with_end(starts: Tensor, end: int) -> Tensor:
    return pad(starts, (0, 1), value=end).to(torch.int32)


def _group_starts(members: Tensor, groups: int) -> Tensor:
    """Cut each segment's members into groups of `FAN_IN`; starts of the groups, with the end of the last."""
    ends = members.add(FAN_IN - 1).div(FAN_IN, rounding_mode="floor").cumsum(0)
    first = members.cumsum(0) - members
    number = torch.arange(groups, device=members.device)
    segment = torch.searchsorted(ends, number, right=True)
    before = pad(ends, (1, 0))[segment]
    return first[segment] + (number - before) * FAN_IN


def check_size(count: int) -> None:
    """Refuse more voxels or segments in all samples than the kernels can count.

    Raises:
        UsageError: If they are 2^31 or more.
    """
    if count >= 2**31:
        raise UsageError(f'the cupy backend counts voxels and segments in 32 bits, got {count}; use backend="torch"')


def make(segments: Tensor, num_segments: int, space: tuple[int, ...]) -> Plan:
    """Sort the voxels of a segments map for pooling. Waits for the device once.

    Determinism: sorting is stable and all sums are of integers, so the plan is the same on every run and device.

    Args:
        segments: Segment ids, (N, P) int32; voxels with ids outside 0..K-1 are left out.
        num_segments: Number of segments K.
        space: The spatial shape, whose product is P.

    Returns:
        The plan, on the device of `segments`.

    Raises:
        UsageError: If voxels or segments are too many to be counted in 32 bits.
    """
    samples, size = segments.shape
    total, rows, device = samples * size, samples * num_segments, segments.device
    check_size(total)
    check_size(rows)
    tile, tiles = _tiles(space, device)
    tile = tile + tiles * torch.arange(samples, device=device).unsqueeze(1)  # (N, P)
    inside = (segments >= 0) & (segments < num_segments)
    outside = samples * tiles * num_segments
    key = torch.where(inside, tile * num_segments + segments, outside).flatten()
    key, voxels = torch.sort(key, stable=True)

    per_tile = max(num_segments, 1)
    tile = key.div(per_tile, rounding_mode="floor")
    tile_start = torch.searchsorted(key, torch.arange(samples * tiles + 1, device=device) * per_tile)
    sorted_in = key < outside
    head = (torch.arange(total, device=device) - tile_start[tile]).remainder(CHUNK) == 0
    chunk_head = head & sorted_in
    new_segment = pad(key[1:] != key[:-1], (1, 0))[:total]
    piece_head = (head | new_segment) & sorted_in
    row = torch.where(sorted_in, tile.div(max(tiles, 1), rounding_mode="floor") * per_tile + key % per_tile, rows)

    # a spare row takes what is outside
    zeros = torch.zeros(rows + 1, dtype=torch.int64, device=device)
    counts = zeros.index_add(0, row, torch.ones_like(row))[:rows]
    members = [zeros.index_add(0, row, piece_head.to(torch.int64))[:rows]]
    for _ in range(_most_levels(size)):
        members.append(members[-1].add(FAN_IN - 1).div(FAN_IN, rounding_mode="floor"))
    chunks_before, pieces_before = chunk_head.cumsum(0), piece_head.cumsum(0)

    sums = [sorted_in.sum(), chunk_head.sum(), *(level.sum() for level in members)]
    most = [pad(level, (0, 1)).amax() for level in members]
    known = torch.stack([*sums, *most]).tolist()  # the one wait for the device
    marked, chunks, (pieces, *groups) = known[0], known[1], known[2 : 2 + len(members)]
    largest = known[2 + len(members) :]

    piece_at = _nth(pieces_before, pieces)
    by_segment = torch.argsort(row[piece_at], stable=True)
    levels: list[Tensor] = []
    for level, count, many in zip(members, groups, largest, strict=False):
        if many <= FAN_IN:
            break
        levels.append(_with_end(_group_starts(level, count), known[2 + len(levels)]))
    last = members[len(levels)]
    levels.append(pad(last.cumsum(0), (1, 0)).to(torch.int32))
    return Plan(
        voxels=voxels[:marked].to(torch.int32),
        piece_start=_with_end(piece_at, marked),
        piece_row=torch.argsort(by_segment).to(torch.int32),
        chunk_piece=_with_end(pieces_before[_nth(chunks_before, chunks)] - 1, pieces),
        counts=counts.to(torch.int32),
        levels=tuple(levels),
    )


def _most_levels(size: int) -> int:
    """How often the pieces of one segment, a voxel each at worst, may have to be joined before `FAN_IN` are left."""
    levels = 0
    while size > FAN_IN:
        size = -(-size // FAN_IN)
        levels += 1
    return levels
