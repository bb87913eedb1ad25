"""The grid that blocks are and that SLIC starts from."""

import itertools

import numpy as np
import pytest

from voxpool.kernels.cells_numba import cell_counter
from voxpool.supervoxels.grid import cell_edges, fit_grid, mean_step, occupancy


@pytest.mark.parametrize("counter", [None, cell_counter])
@pytest.mark.parametrize("kept", [1.0, 0.03])
def test_touched_cells_are_as_many_as_counted_cell_by_cell(kept, counter):
    mask = np.random.default_rng(0).random((9, 10, 7)) < kept
    options = [(1, 2, 9), (3, 4), (2, 7)]
    filled = occupancy(mask, counter)
    assert (filled.shape, filled.voxels) == (mask.shape, mask.sum())
    grids = list(itertools.product(*options))
    for cells, count in zip(grids, filled.count(grids), strict=True):
        index = [
            np.searchsorted(cell_edges(n, c), np.arange(n), "right") for n, c in zip(mask.shape, cells, strict=True)
        ]
        ids = {tuple(i[p] for i, p in zip(index, voxel, strict=True)) for voxel in np.argwhere(mask)}
        assert count == len(ids)


def test_cells_differ_by_at_most_one_voxel_and_none_is_empty():
    for length, cells in [(10, 3), (7, 7), (100, 33), (5, 1)]:
        sizes = np.diff(cell_edges(length, cells))
        assert sizes.sum() == length
        assert len(sizes) == cells
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("shape", "spacing", "goal", "cells"),
    [
        ((12, 12, 12), (1, 1, 1), 27, (3, 3, 3)),
        ((40, 40, 20), (1, 1, 2), 64, (4, 4, 4)),
        ((40, 40, 5), (1, 1, 20), 125, (5, 5, 5)),
        ((64, 64, 3), (1, 1, 5), 3 * 32 * 32, (32, 32, 3)),
        ((30, 1, 20), (1, 9, 1), 6, (3, 1, 2)),
        ((50,), (2,), 7, (7,)),
        ((6, 5, 4), (1, 2, 3), 120, (6, 5, 4)),
        ((6, 5, 4), (1, 2, 3), 1, (1, 1, 1)),
    ],
)
def test_cells_are_nearly_cubic_in_mm(shape, spacing, goal, cells):
    assert fit_grid(occupancy(np.ones(shape, bool)), spacing, goal) == cells


@pytest.mark.parametrize("goal", [100, 150, 500, 777, 2000])
def test_count_is_near_the_goal_in_a_ball(goal):
    grid = np.indices((50, 40, 60)) - np.array([25, 20, 30]).reshape(3, 1, 1, 1)
    mask = (grid**2).sum(axis=0) < 19**2
    filled = occupancy(mask)
    cells = fit_grid(filled, (1.0, 1.0, 1.0), goal)
    assert filled.count([cells]) == [pytest.approx(goal, rel=0.06)]
    edges = np.array(mask.shape) / cells
    assert edges.max() / edges.min() < 1.6


def test_mean_step_is_in_mm_and_leaves_out_flat_axes():
    assert mean_step((12, 12, 12), (1, 1, 2), (3, 3, 3)) == pytest.approx((4 * 4 * 8) ** (1 / 3))
    assert mean_step((12, 1, 27), (1, 5, 1), (3, 1, 3)) == pytest.approx(6)
    assert mean_step((1, 1, 1), (2, 2, 2), (1, 1, 1)) == 1
