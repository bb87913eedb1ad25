"""The regular grid that blocks are and that SLIC starts from: about equal steps in mm along every axis."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from voxpool.kernels.slic_rules import CellCounter

Cells = tuple[int, ...]
"""Number of cells of a grid along each axis."""


@dataclass(frozen=True)
class Occupancy:
    """Which parts of an array a mask fills.

    Attributes:
        shape: Of the mask.
        voxels: That are in the mask.
        count: Takes the number of cells per axis of some grids over the array, and returns how many cells of each touch
            the mask. On a GPU it waits for the device once.
    """

    shape: tuple[int, ...]
    voxels: int
    count: Callable[[Sequence[Cells]], list[int]]


_PRECISION = 1.01
_OBLONG_PENALTY = 0.5


def cell_edges(length: int, cells: int) -> np.ndarray:
    """First index of each of `cells` nearly equal cells of an axis, and its length at the end (int64)."""
    return np.arange(cells + 1, dtype=np.int64) * length // cells


def occupancy(mask: Any, cell_counter: Callable[[Any], CellCounter] | None = None) -> Occupancy:
    """Prepare to count the cells that hold a voxel of a mask.

    Args:
        mask: Boolean; NumPy and any number of axes, or what `cell_counter` takes.
        cell_counter: Prepares the counting for a mask that is not all true; by default NumPy's operations do.
    """
    shape, voxels = tuple(mask.shape), int(mask.sum())
    if voxels == math.prod(shape):
        return Occupancy(shape, voxels, lambda grids: [math.prod(cells) for cells in grids])
    count = (cell_counter or _cell_counter)(mask)

    def count_grids(grids: Sequence[Cells]) -> list[int]:
        return count([[cell_edges(n, c) for n, c in zip(shape, cells, strict=True)] for cells in grids])

    return Occupancy(shape, voxels, count_grids)


def _cell_counter(mask: np.ndarray) -> CellCounter:
    """Sums over the voxels before a corner tell what is in a cell, whatever the number of axes."""
    summed = np.pad(mask.astype(np.int64), [(1, 0)] * mask.ndim)
    for axis in range(mask.ndim):
        np.cumsum(summed, axis, out=summed)

    def touched(edges: Sequence[np.ndarray]) -> int:
        inside = summed[np.ix_(*edges)]
        for axis in range(mask.ndim):
            inside = np.diff(inside, axis=axis)
        return int(np.count_nonzero(inside))

    return lambda grids: [touched(edges) for edges in grids]


def fit_grid(filled: Occupancy, spacing: tuple[float, ...], goal: float) -> Cells:
    """Find a grid of nearly cubic cells about `goal` of which touch a mask.

    The step is bisected. As several axes may change their number of cells at the same step, each axis may
    then have one cell less or more than at that step; the nearest count wins, oblong cells at a penalty.

    Args:
        filled: What `occupancy` says of the mask; the grid spans the whole array.
        spacing: Voxel size in mm, one per axis.
        goal: Wanted number of cells, at least 1.

    Returns:
        Number of cells per axis.
    """
    shape = filled.shape
    lengths = [n * s for n, s in zip(shape, spacing, strict=True)]
    wide = [length for n, length in zip(shape, lengths, strict=True) if n > 1] or [1.0]

    def ideal(step: float) -> list[float]:
        return [min(n, max(1.0, length / step)) for n, length in zip(shape, lengths, strict=True)]

    def touched(step: float) -> int:
        return filled.count([tuple(round(n) for n in ideal(step))])[0]

    share = filled.voxels / math.prod(shape)
    coarse = fine = float(math.prod(wide) * share / goal) ** (1 / len(wide))
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
        range(max(1, round(n) - 1), min(length, round(n) + 1) + 1) for n, length in zip(wanted, shape, strict=True)
    ]
    grids = list(product(*options))

    def misfit(found: tuple[Cells, int]) -> float:
        cells, touching = found
        oblong = sum(math.log(n / w) ** 2 for n, w in zip(cells, wanted, strict=True))
        return abs(math.log(touching / goal)) + _OBLONG_PENALTY * oblong

    return min(zip(grids, filled.count(grids), strict=True), key=misfit)[0]


def mean_step(shape: tuple[int, ...], spacing: tuple[float, ...], cells: tuple[int, ...]) -> float:
    """Geometric mean of the edges of a cell in mm, axes of length 1 left out."""
    edges = [n * s / c for n, s, c in zip(shape, spacing, cells, strict=True) if n > 1]
    return math.prod(edges) ** (1 / len(edges)) if edges else 1.0
