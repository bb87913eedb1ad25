"""The plan of the CUDA kernels, against its definition."""

from itertools import chain

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.kernels.pool_plan import CHUNK, FAN_IN, Plan, make


def tile_of(space: tuple[int, ...], voxel: int) -> tuple[int, ...]:
    """Coordinates of a voxel's tile, from the definition."""
    edges = {1: (2048,), 2: (16, 64), 3: (8, 8, 32), 4: (1, 8, 8, 32)}[len(space)]
    place = []
    for length in reversed(space):
        voxel, step = divmod(voxel, length)
        place.insert(0, step)
    return tuple(p // e for p, e in zip(place, edges, strict=True))


@pytest.mark.parametrize("space", [(4200,), (33, 130), (9, 17, 40), (2, 3, 9, 33)], ids=str)
@pytest.mark.parametrize("num_segments", [1, 7])
def test_every_part_is_what_it_says(space: tuple[int, ...], num_segments: int) -> None:
    size = torch.Size(space).numel()
    segments = torch.randint(-2, num_segments + 1, (2, size), generator=torch.Generator().manual_seed(0)).int()
    plan = make(segments, num_segments, space)
    ids = segments.flatten().tolist()
    inside = [v for v in range(2 * size) if 0 <= ids[v] < num_segments]
    group = {v: (v // size, tile_of(space, v % size)) for v in inside}
    voxels = sorted(inside, key=lambda v: (*group[v], ids[v], v))
    assert plan.voxels.tolist() == voxels

    pieces = [voxels[a:b] for a, b in zip(plan.piece_start[:-1], plan.piece_start[1:], strict=True)]
    assert list(chain(*pieces)) == voxels
    assert all(len({(v // size, ids[v]) for v in piece}) == 1 for piece in pieces)
    chunks = [pieces[a:b] for a, b in zip(plan.chunk_piece[:-1], plan.chunk_piece[1:], strict=True)]
    assert list(chain(*chunks)) == pieces
    sizes = [sum(map(len, chunk)) for chunk in chunks]
    per_tile = [list(group.values()).count(g) for g in sorted(set(group.values()))]
    assert sizes == [min(CHUNK, left - start) for left in per_tile for start in range(0, left, CHUNK)]
    for chunk in chunks:
        assert len({group[piece[0]] for piece in chunk}) == 1
        assert len({ids[piece[0]] for piece in chunk}) == len(chunk)

    rows = [piece[0] // size * num_segments + ids[piece[0]] for piece in pieces]
    order = sorted(range(len(pieces)), key=lambda q: (rows[q], q))
    assert [plan.piece_row[q] for q in order] == list(range(len(pieces)))
    (level,) = plan.levels
    assert level.tolist() == [sum(row < g for row in rows) for g in range(2 * num_segments + 1)]
    counted = [ids[n * size : (n + 1) * size].count(k) for n in range(2) for k in range(num_segments)]
    assert plan.counts.tolist() == counted
    assert all(t.dtype == torch.int32 for t in plan.tensors())


def test_many_partials_are_joined_by_levels() -> None:
    segments = torch.zeros((1, 8 * (FAN_IN * FAN_IN + 1)), dtype=torch.int32)
    segments[:, :80] = 2
    plan = make(segments, 3, (segments.shape[1], 1, 1))
    members = FAN_IN * FAN_IN + 1 - 10
    assert len(plan.piece_row) == members + 10
    first, second = plan.levels
    assert first.tolist() == [*range(0, members, FAN_IN), members, members + 10]
    assert second.tolist() == [0, FAN_IN, FAN_IN, FAN_IN + 1]


def test_a_plan_survives_as_a_list_of_tensors() -> None:
    segments = torch.zeros((1, 8 * 70), dtype=torch.int32)
    plan = make(segments, 1, (8 * 70, 1, 1))
    assert len(plan.levels) == 2
    again = Plan.of(plan.tensors())
    assert all(a is b for a, b in zip(plan.tensors(), again.tensors(), strict=True))


@pytest.mark.parametrize(("shape", "num_segments"), [((0, 5), 3), ((2, 0), 3), ((2, 5), 0), ((0, 0), 0)])
def test_nothing_gives_an_empty_plan(shape: tuple[int, int], num_segments: int) -> None:
    plan = make(torch.zeros(shape, dtype=torch.int32), num_segments, shape[1:])
    assert [len(t) for t in plan[:4]] == [0, 1, 0, 1]
    assert plan.counts.tolist() == [0] * (shape[0] * num_segments)
    assert plan.levels[0].tolist() == [0] * (shape[0] * num_segments + 1)


@pytest.mark.parametrize(("shape", "num_segments"), [((2, 2**30), 1), ((2, 1), 2**30)])
def test_what_32_bits_cannot_count_is_refused(shape: tuple[int, int], num_segments: int) -> None:
    segments = torch.zeros((1, 1), dtype=torch.int32).expand(shape)
    with pytest.raises(UsageError, match='counts voxels and segments in 32 bits, got 2147483648; use backend="torch"'):
        make(segments, num_segments, shape[1:])
