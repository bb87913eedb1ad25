"""The regular grid that blocks are and that SLIC starts from: about equal steps in mm along every axis."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np

# Number of cells per axis, and how many of the cells touch the mask.
Grid = tuple[tuple[int, ...], int]

_PRECISION = 1.01
_OBLONG_PENALTY = 0.5


def cell_edges(length: int, cells: int) -> np.ndarray:
    """First index of each of `cells` nearly equal cells of an axis, and its length at the end (int64)."""
    return np.arange(cells + 1, dtype=np.int64) * length // cells


def count_touched(mask: np.ndarray, options: Sequence[Iterable[int]]) -> Iterator[Grid]:
    """Count the cells that hold a voxel of the mask, for every grid made of the options of each axis.

    Yields:
        Number of cells per axis, and how many of these cells touch the mask.
    """

    def count(touched: np.ndarray, axis: int, cells: tuple[int, ...]) -> Iterator[Grid]:
        if axis == mask.ndim:
            yield cells, int(np.count_nonzero(touched))
            return
        for n in options[axis]:
            starts = cell_edges(mask.shape[axis], n)[:-1]
            yield from count(np.maximum.reduceat(touched, starts, axis=axis), axis + 1, (*cells, n))

    if mask.all():
        yield from ((cells, math.prod(cells)) for cells in product(*options))
    else:
        yield from count(mask.view(np.uint8), 0, ())


def fit_grid(mask: np.ndarray, spacing: tuple[float, ...], goal: float) -> tuple[int, ...]:
    """Find a grid of nearly cubic cells about `goal` of which touch the mask.

    The step is bisected. As several axes may change their number of cells at the same step, each axis may
    then have one cell less or more than at that step; the nearest count wins, oblong cells at a penalty.

    Args:
        mask: Boolean array, any number of axes; the grid spans the whole array.
        spacing: Voxel size in mm, one per axis.
        goal: Wanted number of cells, at least 1.

    Returns:
        Number of cells per axis.
    """
    lengths = [n * s for n, s in zip(mask.shape, spacing, strict=True)]
    wide = [length for n, length in zip(mask.shape, lengths, strict=True) if n > 1] or [1.0]

    def ideal(step: float) -> list[float]:
        return [min(n, max(1.0, length / step)) for n, length in zip(mask.shape, lengths, strict=True)]

    def touched(step: float) -> int:
        return next(count_touched(mask, [[round(n)] for n in ideal(step)]))[1]

    coarse = fine = float(np.prod(wide) * mask.mean() / goal) ** (1 / len(wide))
    while touched(coarse) > goal:
        coarse *= 1.1
    while touched(fine) < goal:
        fine /= 1.1
    while coarse / fine > _PRECISION:
        step = (coarse * fine) ** 0.5
        if touched(step) > goal:
            fine = step
        else:
            coarse = step
    wanted = ideal((coarse * fine) ** 0.5)
    options = [
        range(max(1, round(n) - 1), min(length, round(n) + 1) + 1) for n, length in zip(wanted, mask.shape, strict=True)
    ]

    def misfit(grid: Grid) -> float:
        cells, count = grid
        oblong = sum(math.log(n / w) ** 2 for n, w in zip(cells, wanted, strict=True))
        return abs(math.log(count / goal)) + _OBLONG_PENALTY * oblong

    return min(count_touched(mask, options), key=misfit)[0]


def mean_step(shape: tuple[int, ...], spacing: tuple[float, ...], cells: tuple[int, ...]) -> float:
    """Geometric mean of the edges of a cell in mm, axes of length 1 left out."""
    edges = [n * s / c for n, s, c in zip(shape, spacing, cells, strict=True) if n > 1]
    return math.prod(edges) ** (1 / len(edges)) if edges else 1.0
