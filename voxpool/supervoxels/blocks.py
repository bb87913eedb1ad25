"""BLOCK supervoxels: cubes by integer division, the limit of SLIC at high compactness."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import bounding_box, check_count, check_mask, check_spacing, like
from voxpool.supervoxels.grid import cell_edges, fit_grid, occupancy


def blocks(
    shape: Sequence[int],
    *,
    n_segments: int | None = None,
    size: int | Sequence[int] | None = None,
    mask: Any = None,
    spacing: Sequence[float] | None = None,
) -> Any:
    """Cut an image of this shape into cubes.

    A block that the mask cuts into several pieces keeps one id: unlike a segment of `slic`, it may
    be disconnected.

    Determinism: the same arguments give the same blocks.

    Args:
        shape: Spatial shape, any number of axes.
        n_segments: Wanted number of blocks (that touch the mask, when there is one); the nearest grid of
            about equal steps in mm over the mask's bounding box is taken.
        size: Edge in voxels instead, one for all axes or one each; the last block of an axis may be shorter.
            One size together with `spacing` counts along the finest axis, and the others follow in mm.
        mask: Boolean array of this shape, NumPy or torch; voxels outside get -1.
        spacing: Voxel size in mm, one per axis, in array order; 1 each by default.

    Returns:
        Segments of this shape, int32, torch when the mask is: consecutive ids in raster order of the blocks.

    Raises:
        UsageError: Not exactly one of `n_segments` and `size` is given, or an argument does not fit.

    Example:
        >>> blocks((2, 4), size=2).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise UsageError(f"shape must be one positive length per axis, got {shape}.")
    if (n_segments is None) == (size is None):
        raise UsageError(f"give exactly one of n_segments and size, got n_segments={n_segments} and size={size}.")
    mm = check_spacing(spacing, len(shape))
    inside = check_mask(mask, shape)
    if n_segments is not None:
        n_segments = check_count(n_segments, int(np.count_nonzero(inside)))
        box = bounding_box(inside)
        inner = np.ascontiguousarray(inside[box])
        counts = fit_grid(occupancy(inner), mm, n_segments)
        starts = [s.start + cell_edges(n, cells) for s, n, cells in zip(box, inner.shape, counts, strict=True)]
    else:
        sizes = _sizes(size, spacing, mm)
        starts = [np.arange(0, n + s, s) for n, s in zip(shape, sizes, strict=True)]
    ids = np.zeros((1,) * len(shape), np.int64)
    for axis, edges in enumerate(starts):
        along = np.searchsorted(edges, np.arange(shape[axis]), side="right") - 1
        ids = ids * (edges.size - 1) + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return like(_consecutive(ids, inside), mask)


def _sizes(size: Any, spacing: Sequence[float] | None, mm: tuple[float, ...]) -> list[int]:
    if np.ndim(size) == 0:
        sizes = [round(size * min(mm) / s) for s in mm]
        sizes = [max(1, s) for s in sizes] if size >= 1 else sizes
    elif spacing is not None:
        raise UsageError("spacing has no effect on a size per axis: leave spacing out, or give one size.")
    else:
        sizes = [int(s) for s in size]
    if len(sizes) != len(mm) or min(sizes) < 1:
        raise UsageError(f"size must be a number of voxels of at least 1, one or one per axis ({len(mm)}), got {size}.")
    return sizes


def _consecutive(ids: np.ndarray, inside: np.ndarray) -> np.ndarray:
    used = np.zeros(int(ids.max()) + 1, bool)
    used[ids[inside]] = True
    number = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return np.where(inside, number[ids], np.int32(-1))
