"""Count the cells of grids that a mask touches, on the CPU, from sums over the mask."""

from typing import Any

import numpy as np
from numba import njit

from voxpool.kernels.slic_rules import CellCounter


@njit(cache=True, nogil=True, boundscheck=False)
def _sum(inside: Any, summed: Any) -> None:
    """Sum the mask over all voxels before a corner, along every axis."""
    depth, height, width = inside.shape
    for z in range(depth):
        for y in range(height):
            row = np.int32(0)
            for x in range(width):
                row += inside[z, y, x]
                summed[z + 1, y + 1, x + 1] = row + (
                    summed[z, y + 1, x + 1] + summed[z + 1, y, x + 1] - summed[z, y, x + 1]
                )


@njit(cache=True, nogil=True, boundscheck=False)
def _count(summed: Any, edges_z: Any, edges_y: Any, edges_x: Any) -> Any:
    touched = 0
    for i in range(edges_z.size - 1):
        low, high = summed[edges_z[i]], summed[edges_z[i + 1]]
        for j in range(edges_y.size - 1):
            a, b = edges_y[j], edges_y[j + 1]
            x = edges_x[0]
            before = high[b, x] - high[a, x] - low[b, x] + low[a, x]
            for k in range(1, edges_x.size):
                x = edges_x[k]
                upto = high[b, x] - high[a, x] - low[b, x] + low[a, x]
                touched += upto != before
                before = upto
    return touched


def cell_counter(inside: np.ndarray) -> CellCounter:
    """See `voxpool.kernels.slic_rules.SlicKernels.cell_counter`."""
    summed = np.zeros([n + 1 for n in inside.shape], np.int32)
    _sum(inside, summed)
    return lambda grids: [int(_count(summed, *edges)) for edges in grids]
