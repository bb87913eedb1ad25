"""SLIC supervoxels and superpixels (Achanta et al., IEEE TPAMI 34(11), 2012), in 2D and 3D, with a mask."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import bounding_box, check_count, check_mask, check_spacing, is_tensor, like, to_numpy
from voxpool.supervoxels.grid import Cells, cell_edges, fit_grid, mean_step, occupancy

if TYPE_CHECKING:
    from voxpool.kernels.slic_rules import SlicKernels

DEFAULT_COMPACTNESS = 0.1
# Weights beyond this leave float32.
_MAX_COMPACTNESS = 1e6
_TOLERANCE = 0.05
_CORRECTIONS = 2
# On a noisy image some of the first segments end too small and merge: a second run costs more than merging a few more.
_HEADROOM = 1.08
_HEADROOM_FROM = 500
_MAX_CORRECTION = 1.5


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
    progress: Callable[[float], object] | None = None,
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

    The grid is chosen so that as many of its cells touch the mask as segments were asked for; from 500 on, 8 % more,
    since some end too small. When too many segments result, those below the mean size are merged in the same way, the
    smallest first (below 500, 5 % are not too many); when more than 5 % are missing, the grid is made finer, at most
    twice. So K is `n_segments` in most cases, and within 5 % of it but for a mask of many islands (even the smallest
    stays a segment) and for a grid of only a few cells.

    A tensor on an NVIDIA GPU is segmented there, where CuPy runs, and on the CPU otherwise.

    Determinism: the same input gives the same segments, bit for bit, for any number of threads, on CPU and GPU.

    Args:
        image: (H, W) or (D, H, W), plus an axis of channels where `channel_axis` names one; NumPy or torch.
        n_segments: Approximate number of segments wanted.
        compactness: Weight of space against intensity, up to 1e6; as it grows, segments turn into cubes.
        spacing: Voxel size in mm, one per spatial axis, in array order; 1 each by default.
        mask: Boolean array of the spatial shape; voxels outside get -1 and their values are not read.
        max_num_iter: Number of assignments of voxels to centres.
        min_size_factor: Smallest allowed segment, as a fraction of the mean size.
        channel_axis: Axis of the channels, or None for a single-channel image.
        progress: Called after every assignment with the share of the work that is done, 1 at the end; it starts again
            where the grid has to be made finer. What it raises ends the work and reaches the caller.

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
    device = _device(image)
    kernels = _kernels(device)
    xp: Any = np if device is None else sys.modules["torch"]
    channels = _channels_first(to_numpy(image) if device is None else image.detach(), channel_axis, xp)
    shape = tuple(channels.shape[1:])
    mm = check_spacing(spacing, len(shape))
    if not 0 < compactness <= _MAX_COMPACTNESS:
        raise UsageError(f"compactness must be above 0 and at most 1e6, got {compactness}.")
    if max_num_iter < 1:
        raise UsageError(f"max_num_iter must be at least 1, got {max_num_iter}.")
    if not 0 <= min_size_factor < 1:
        raise UsageError(f"min_size_factor must be at least 0 and less than 1, got {min_size_factor}.")
    inside = check_mask(mask, shape, device)
    voxels = int(inside.sum())
    n_segments = check_count(n_segments, voxels)

    box = bounding_box(inside) if mask is not None else (slice(None),) * len(shape)
    inner = inside[box]
    if len(shape) == 2:
        # The layers of the grid's first axis are what threads share, so depth 1 goes in the middle.
        channels, inner, mm = channels[:, :, None], inner[:, None], (mm[0], 1.0, mm[1])
        box = (box[0], slice(None), box[1])
    features = xp.stack([kernels.scale(channel[box], inner) for channel in channels])
    found = _segment(
        kernels,
        features,
        inner,
        mm,
        n_segments,
        compactness=compactness,
        iterations=max_num_iter,
        min_size=min_size_factor * voxels / n_segments,
        report=progress or (lambda fraction: None),
    )
    if tuple(found.shape) == tuple(channels.shape[1:]):
        segments = found.reshape(shape)
    else:
        segments = xp.full_like(inside, -1, dtype=xp.int32)
        segments.reshape(channels.shape[1:])[box] = found
    return like(segments, image) if device is None else segments


def _device(image: Any) -> Any:
    """The GPU that holds an image where it can be segmented there, None for the CPU."""
    if not is_tensor(image) or not image.is_cuda:
        return None
    from voxpool.kernels._cuda import refusal

    return image.device if refusal() is None else None


def _kernels(device: Any) -> "SlicKernels":
    return cast("SlicKernels", import_module(f"voxpool.kernels.slic_{'numba' if device is None else 'cupy'}"))


def _channels_first(array: Any, channel_axis: int | None, xp: Any) -> Any:
    if array.dtype.is_complex if is_tensor(array) else array.dtype.kind not in "biuf":
        raise UsageError(f"the image must hold integers or floating-point numbers, got {array.dtype}.")
    if 0 in array.shape:
        raise UsageError(f"the image has no voxels: its shape is {tuple(array.shape)}.")
    ndim = array.ndim - (channel_axis is not None)
    if ndim not in (2, 3):
        raise UsageError(
            f"the image must have 2 or 3 spatial axes, got shape {tuple(array.shape)} with "
            f"channel_axis={channel_axis}: pass one volume at a time and name its channels with channel_axis."
        )
    if channel_axis is None:
        array = array[None]
    elif -array.ndim <= channel_axis < array.ndim:
        array = xp.moveaxis(array, channel_axis, 0)
    else:
        raise UsageError(f"channel_axis is {channel_axis}, but the image has only {array.ndim} axes.")
    return array


def _segment(
    kernels: "SlicKernels",
    features: Any,
    inside: Any,
    spacing: tuple[float, ...],
    n_segments: int,
    *,
    compactness: float,
    iterations: int,
    min_size: float,
    report: Callable[[float], object],
) -> Any:
    """Run SLIC on a grid that is made finer until about n_segments remain after connection."""
    roomy = n_segments >= _HEADROOM_FROM
    most = n_segments if roomy else int((1 + _TOLERANCE) * n_segments)
    filled = occupancy(inside, kernels.cell_counter)
    limit = min(_MAX_CORRECTION * n_segments, float(filled.voxels))

    def run(cells: Cells) -> tuple[Any, int]:
        edges = tuple(cell_edges(n, c) for n, c in zip(filled.shape, cells, strict=True))
        step = mean_step(filled.shape, spacing, cells)
        weights = np.array([(compactness * s / step) ** 2 for s in spacing] + [1 / len(features)])
        # connecting takes about as long as two assignments
        done = kernels.assign(
            features, inside, edges, weights, iterations, lambda number: report(number / (iterations + 2))
        )
        return kernels.connect(done, features, min_size, most)

    goal = min(_HEADROOM * n_segments if roomy else float(n_segments), limit)
    cells = fit_grid(filled, spacing, goal)
    segments, found = run(cells)
    for _ in range(_CORRECTIONS):
        if found >= (1 - _TOLERANCE) * n_segments or goal >= limit:
            break
        goal = min(goal * n_segments / found, limit)
        finer = fit_grid(filled, spacing, goal)
        while finer == cells and goal < limit:
            goal = min(goal * (1 + _TOLERANCE), limit)
            finer = fit_grid(filled, spacing, goal)
        cells = finer
        again = run(cells)
        if abs(again[1] - n_segments) < abs(found - n_segments):
            segments, found = again
    report(1.0)
    return segments
