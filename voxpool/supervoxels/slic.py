"""SLIC supervoxels and superpixels (Achanta et al., IEEE TPAMI 34(11), 2012), in 2D and 3D, with a mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import bounding_box, check_count, check_mask, check_spacing, like, to_numpy
from voxpool.supervoxels.grid import cell_edges, fit_grid, mean_step

DEFAULT_COMPACTNESS = 0.1
# Weights and ranges beyond these leave float32 and float64.
_MAX_COMPACTNESS = 1e6
_MAX_VALUE = 1e300
_FEATURE_STEP = 2.0**-16
_TOLERANCE = 0.05
_CORRECTIONS = 2
_MAX_CORRECTION = 1.5
_PERCENTILE_VOXELS = 1 << 20


def slic(
    image: Any,
    n_segments: int = 1000,
    *,
    compactness: float = DEFAULT_COMPACTNESS,
    spacing: Sequence[float] | None = None,
    mask: Any = None,
    max_num_iter: int = 10,
    min_size_factor: float = 0.25,
    channel_axis: int | None = None,
) -> Any:
    """Group the voxels of an image into connected, compact segments of similar intensity.

    Each voxel joins, among the centres of the 27 grid cells around it (9 in 2D), the one with the least
    `D^2 = d_intensity^2 + (compactness * d_space / S)^2` (Achanta et al. 2012, equation 3), where `S` is the
    mean edge of a grid cell in mm; each centre then moves to the mean of its voxels. The first centres are
    the means of the grid cells. Finally stray components below `min_size_factor` times the mean size join the
    adjacent segment of the nearest mean intensity.

    Intensities are scaled so that one compactness means the same on every scan: the 1st and 99th percentile
    inside the mask (of at most about a million evenly spaced voxels) become 0 and 1, channel by channel.
    Values beyond them keep their contrast up to -1 and 2, where they are clipped, so that one bright vessel
    cannot dominate a segment's mean. With several channels `d_intensity^2` is the mean over channels.

    The grid is chosen so that as many of its cells touch the mask as segments were asked for. When more than
    5 % too many segments result, those below the mean size are merged in the same way, the smallest first;
    when more than 5 % are missing, the grid is made finer, at most twice. So K is within 5 % of `n_segments`,
    but for a mask of many islands (even the smallest stays a segment) and for a grid of only a few cells.

    Determinism: the same input gives the same segments, bit for bit, for any number of threads.

    Args:
        image: (H, W) or (D, H, W), plus an axis of channels where `channel_axis` names one; NumPy or torch.
        n_segments: Approximate number of segments wanted.
        compactness: Weight of space against intensity, up to 1e6; as it grows, segments turn into cubes.
        spacing: Voxel size in mm, one per spatial axis, in array order; 1 each by default.
        mask: Boolean array of the spatial shape; voxels outside get -1 and their values are not read.
        max_num_iter: Number of assignments of voxels to centres.
        min_size_factor: Smallest allowed segment, as a fraction of the mean size.
        channel_axis: Axis of the channels, or None for a single-channel image.

    Returns:
        Segments of the spatial shape, int32, NumPy or torch as the image: ids 0..K-1 in raster order of their
        first voxel, each exactly one face-connected component; -1 outside the mask.

    Raises:
        UsageError: An argument does not fit, or a voxel inside the mask is NaN or infinite.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((8, 8, 8))
        >>> image[4:] = 1
        >>> int(slic(image, 8).max()) + 1
        8
    """
    channels = _channels_first(image, channel_axis)
    shape = channels.shape[1:]
    mm = check_spacing(spacing, len(shape))
    if not 0 < compactness <= _MAX_COMPACTNESS:
        raise UsageError(f"compactness must be above 0 and at most 1e6, got {compactness}.")
    if max_num_iter < 1:
        raise UsageError(f"max_num_iter must be at least 1, got {max_num_iter}.")
    if not 0 <= min_size_factor < 1:
        raise UsageError(f"min_size_factor must be at least 0 and less than 1, got {min_size_factor}.")
    inside = check_mask(mask, shape)
    n_segments = check_count(n_segments, int(np.count_nonzero(inside)))

    box = bounding_box(inside)
    inner = np.ascontiguousarray(inside[box])
    features = np.stack([_scale(channel[box], inner) for channel in channels])
    segments = np.full(shape, -1, np.int32)
    segments[box] = _segment(
        features,
        inner,
        mm,
        n_segments,
        compactness=compactness,
        iterations=max_num_iter,
        min_size=min_size_factor * np.count_nonzero(inner) / n_segments,
    )
    return like(segments, image)


def _channels_first(image: Any, channel_axis: int | None) -> np.ndarray:
    array = to_numpy(image)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"the image must hold integers or floating-point numbers, got {array.dtype}.")
    if array.size == 0:
        raise UsageError(f"the image has no voxels: its shape is {array.shape}.")
    ndim = array.ndim - (channel_axis is not None)
    if ndim not in (2, 3):
        raise UsageError(
            f"the image must have 2 or 3 spatial axes, got shape {array.shape} with "
            f"channel_axis={channel_axis}: pass one volume at a time and name its channels with channel_axis."
        )
    if channel_axis is None:
        array = array[None]
    elif -array.ndim <= channel_axis < array.ndim:
        array = np.moveaxis(array, channel_axis, 0)
    else:
        raise UsageError(f"channel_axis is {channel_axis}, but the image has only {array.ndim} axes.")
    return array


def _scale(channel: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Scale one channel by its percentiles inside the mask, to float32 multiples of 2^-16; 0 outside."""
    values = channel[inside].astype(np.float64)
    unusable = np.count_nonzero(~(np.abs(values) <= _MAX_VALUE))
    if unusable:
        raise UsageError(
            f"the image has {unusable} NaN, infinite or immense voxels inside the mask: "
            "replace them, or leave them out of the mask."
        )
    # An odd stride does not keep step with the axes, whose lengths are mostly even.
    some = values[:: values.size // _PERCENTILE_VOXELS | 1]
    last = some.size - 1
    ranks = round(0.01 * last), round(0.99 * last)
    low, high = np.partition(some, ranks)[list(ranks)]
    if low == high:
        low, high = values.min(), values.max()
    scaled = np.zeros(channel.shape, np.float32)
    if low < high:
        values -= low
        values /= high - low
        np.clip(values, -1, 2, out=values)
        values /= _FEATURE_STEP
        np.rint(values, out=values)
        scaled[inside] = values * _FEATURE_STEP
    return scaled


def _segment(
    features: np.ndarray,
    inside: np.ndarray,
    spacing: tuple[float, ...],
    n_segments: int,
    *,
    compactness: float,
    iterations: int,
    min_size: float,
) -> np.ndarray:
    """Run SLIC on a grid that is made finer until about n_segments remain after connection."""
    from voxpool.kernels.connectivity_numba import connect_numba
    from voxpool.kernels.slic_numba import slic_numba

    shape = inside.shape
    if len(shape) == 2:
        # The layers of the grid's first axis are what threads share, so depth 1 goes in the middle.
        features, inside = features[:, :, None], inside[:, None]
        spacing = (spacing[0], 1.0, spacing[1])
    most = int((1 + _TOLERANCE) * n_segments)
    limit = min(_MAX_CORRECTION * n_segments, float(np.count_nonzero(inside)))

    def run(cells: tuple[int, ...]) -> tuple[np.ndarray, int]:
        z, y, x = (cell_edges(n, c) for n, c in zip(inside.shape, cells, strict=True))
        step = mean_step(inside.shape, spacing, cells)
        weights = np.array([(compactness * s / step) ** 2 for s in spacing] + [1 / len(features)])
        assigned = slic_numba(features, inside, (z, y, x), weights, iterations)
        return connect_numba(assigned, features, min_size, most)

    goal = float(n_segments)
    cells = fit_grid(inside, spacing, goal)
    segments, found = run(cells)
    for _ in range(_CORRECTIONS):
        if found >= (1 - _TOLERANCE) * n_segments or goal >= limit:
            break
        goal = min(goal * n_segments / found, limit)
        finer = fit_grid(inside, spacing, goal)
        while finer == cells and goal < limit:
            goal = min(goal * (1 + _TOLERANCE), limit)
            finer = fit_grid(inside, spacing, goal)
        cells = finer
        again = run(cells)
        if abs(again[1] - n_segments) < abs(found - n_segments):
            segments, found = again
    return segments.reshape(shape)
