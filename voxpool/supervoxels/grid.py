"""The regular grid that blocks are and that SLIC starts from: about equal steps in mm along every axis."""

from itertools import product

import numpy as np


def cell_edges(length: int, cells: int) -> np.ndarray:
    """First index of each of `cells` nearly equal cells of an axis, and its length at the end (int64)."""
    return np.arange(cells + 1, dtype=np.int64) * length // cells


def count_touched(mask: np.ndarray, counts: tuple[int, ...]) -> int:
    """Number of grid cells that hold at least one voxel of the mask."""
    touched = mask.view(np.uint8)
    for axis, cells in enumerate(counts):
        touched = np.maximum.reduceat(touched, cell_edges(mask.shape[axis], cells)[:-1], axis=axis)
    return int(np.count_nonzero(touched))


def fit_grid(mask: np.ndarray, spacing: tuple[float, ...], goal: float) -> tuple[tuple[int, ...], float]:
    """Find the grid whose number of cells that touch the mask is nearest to the goal.

    The step is bisected; as all axes may change their number of cells at the same step, the two grids on
    either side of the goal are then mixed axis by axis.

    Args:
        mask: Boolean array, any number of axes; the grid spans the whole array.
        spacing: Voxel size in mm, one per axis.
        goal: Wanted number of cells, at least 1.

    Returns:
        Number of cells per axis, and the step in mm.
    """
    full = bool(mask.all())
    known: dict[tuple[int, ...], int] = {}
    lengths = [n * s for n, s in zip(mask.shape, spacing, strict=True)]

    def grid(step: float) -> tuple[int, ...]:
        return tuple(
            min(n, max(1, round(length / step))) for n, length in zip(mask.shape, lengths, strict=True)
        )

    def touched(counts: tuple[int, ...]) -> int:
        if counts not in known:
            known[counts] = int(np.prod(counts)) if full else count_touched(mask, counts)
        return known[counts]

    wide = [length for n, length in zip(mask.shape, lengths, strict=True) if n > 1] or [1.0]
    step = float(np.prod(wide) * mask.mean() / goal) ** (1 / len(wide))
    coarse, fine = step, step
    while touched(grid(coarse)) > goal and any(n > 1 for n in grid(coarse)):
        coarse *= 1.25
    while touched(grid(fine)) < goal and grid(fine) != mask.shape:
        fine /= 1.25
    while coarse / fine > 1.0005 and grid(coarse) != grid(fine):
        step = (coarse * fine) ** 0.5
        if touched(grid(step)) > goal:
            fine = step
        else:
            coarse = step
    choices = sorted(set(product(*({a, b} for a, b in zip(grid(coarse), grid(fine), strict=True)))))
    counts = min(choices, key=lambda c: (abs(touched(c) - goal), c))
    return counts, (coarse * fine) ** 0.5
