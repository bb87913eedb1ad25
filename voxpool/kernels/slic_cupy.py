"""SLIC for NVIDIA GPUs: launches `cuda/slic.cu` through CuPy on torch's memory and stream.

The labels have the bits of the CPU kernels. Which small components merge is decided on the CPU, from their sizes,
means and neighbours; voxels stay on the device, and are waited for once per merging and once before it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels import _cuda
from voxpool.kernels.merging_numba import merge_components
from voxpool.kernels.slic_rules import FEATURE_STEP, check_usable, percentile_ranks, percentile_stride, usable

_THREADS = 256
_MOST_ASSIGNING = 128
_VOXELS, _PART, _STRETCH = 4, 2048, 8
"""As in `cuda/slic.cu`: voxels of a thread and of a block that assigns, voxels in a row that a thread adds up."""


def kernel_names(channels: int) -> tuple[str, ...]:
    """The kernels for images of so many channels."""
    shaped = tuple(f"{name}<{channels}>" for name in ("assign", "move", "renumber"))
    return (*shaped, "scale", "runs", "join_runs", "flatten", "touch")


def _launch(
    channels: int,
    kernel: str,
    grid: int,
    like: Tensor,
    *args: Tensor | np.generic | None,
    threads: int = _THREADS,
    shared_mem: int = 0,
) -> None:
    """Run a kernel on the device of `like`."""
    module = _cuda.module("slic.cu", kernel_names(channels), like.device)
    values = tuple(_cuda.address(a) if a is None or isinstance(a, Tensor) else a for a in args)
    module.get_function(kernel.format(channels))((grid,), (threads,), values, shared_mem=shared_mem)


def scale(channel: Tensor, inside: Tensor) -> Tensor:
    """See `voxpool.kernels.slic_rules.SlicKernels.scale`."""
    _check_size(channel)
    whole = bool(inside.all())
    values = channel.flatten() if whole else channel[inside]
    some = values[:: percentile_stride(len(values))].sort().values
    ranks = torch.tensor(percentile_ranks(len(some)), device=some.device)
    values = values.to(torch.float64)
    percentiles, extremes = some[ranks].to(torch.float64), torch.stack(values.aminmax())
    limits = torch.where(percentiles[0] == percentiles[1], extremes, percentiles)
    check_usable(len(values) - int(usable(values).sum()))
    out = torch.empty(channel.shape, dtype=torch.float32, device=channel.device)
    # values, inside and limits must live until the kernel is launched: the stream keeps them afterwards
    everywhere, mask = channel.to(torch.float64).contiguous(), inside.contiguous()
    blocks = _cuda.blocks(out.numel(), _THREADS)
    _launch(1, "scale", blocks, out, everywhere, mask, limits, out, np.int64(out.numel()))
    return out


def _check_size(volume: Tensor) -> None:
    if volume.numel() >= 2**31 - _THREADS or max(volume.shape) >= 2**20:
        raise UsageError(
            f"supervoxels on a GPU need less than 2^31 voxels, and 2^20 along each axis, got shape "
            f"{tuple(volume.shape)}: take them on the CPU with image.cpu()."
        )


def assign(
    features: Tensor,
    inside: Tensor,
    edges: Sequence[np.ndarray],
    weights: np.ndarray,
    iterations: int,
    report: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """See `voxpool.kernels.slic_rules.SlicKernels.assign`."""
    channels, device = len(features), features.device
    features, inside = features.contiguous(), inside.contiguous()
    cells = [len(e) - 1 for e in edges]
    count = int(np.prod(cells))
    volume = int(np.prod([np.diff(e).max() for e in edges]))
    parts = _cuda.blocks(volume, _PART)
    threads = min(_MOST_ASSIGNING, 32 * _cuda.blocks(volume, 32 * _VOXELS))
    borders = torch.from_numpy(np.concatenate(edges).astype(np.int32)).to(device)
    factors = torch.from_numpy(np.ascontiguousarray(weights, np.float64)).to(device)
    centres = torch.zeros((count, 3 + channels), dtype=torch.float64, device=device)
    sums = torch.zeros((count, 4 + channels), dtype=torch.int64, device=device)
    counts = torch.zeros(count, dtype=torch.int32, device=device)
    segments = torch.empty(inside.shape, dtype=torch.int32, device=device)
    sizes = tuple(np.int32(n) for n in (*cells, *inside.shape, parts))

    for done in range(iterations + 1):
        first, last = done == 0, done == iterations
        arrays = (features, inside, borders, centres, factors, counts, segments if last else None, sums)
        shared = 4 * (27 * (9 + 2 * channels) + 1)
        own = np.int32(first)
        _launch(
            channels, "assign<{}>", count * parts, features, *arrays, *sizes, own, threads=threads, shared_mem=shared
        )
        if not last:
            moving = (centres, sums, counts if first else None, np.int32(count))
            _launch(channels, "move<{}>", _cuda.blocks(count, _THREADS), features, *moving)
        if not first:
            report(done)
    return segments


def connect(segments: Tensor, features: Tensor, min_size: float, most: int) -> tuple[Tensor, int]:
    """See `voxpool.kernels.slic_rules.SlicKernels.connect`."""
    features = features.contiguous()
    components, roots = _roots(segments, len(features))
    table = torch.empty(components.numel(), dtype=torch.int32, device=components.device)
    table[roots] = torch.arange(len(roots), dtype=torch.int32, device=components.device)
    count = len(roots)
    table, count, inside = _measure_and_merge(components, features, table, count, float(min_size), 1)
    if count > most:
        table, count, _ = _measure_and_merge(components, features, table, count, inside / most, most)
    _renumber(components, features, table, None, None)
    return components, count


def _roots(segments: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The first voxel of each voxel's component, -1 outside; and those voxels in rising order."""
    segments = segments.contiguous()
    parents, root = torch.empty_like(segments), torch.empty(segments.shape, dtype=torch.bool, device=segments.device)
    _, height, width = (np.int32(n) for n in segments.shape)
    size, blocks = np.int32(segments.numel()), _cuda.blocks(segments.numel(), _THREADS)
    _launch(channels, "runs", blocks, segments, segments, parents, size, width)
    _launch(channels, "join_runs", blocks, segments, segments, parents, size, height, width)
    _launch(channels, "flatten", blocks, segments, parents, root, size)
    return parents, root.flatten().nonzero()[:, 0]


def _renumber(components: Tensor, features: Tensor, table: Tensor, sizes: Tensor | None, sums: Tensor | None) -> None:
    size = components.numel()
    blocks = _cuda.blocks(size, _THREADS * _STRETCH)
    arrays = (components, table, features, sizes, sums)
    _launch(len(features), "renumber<{}>", blocks, components, *arrays, np.int32(size))


def _measure_and_merge(
    components: Tensor, features: Tensor, table: Tensor, count: int, min_size: float, enough: int
) -> tuple[Tensor, int, int]:
    """Number the components by a table; the table that merges them, how many are then left, and their voxels."""
    channels, device = len(features), components.device
    measures = torch.zeros(count * (1 + channels), dtype=torch.int64, device=device)
    _renumber(components, features, table, measures, measures[count:])
    known = measures.cpu().numpy()
    sizes, sums = known[:count], known[count:].reshape(count, channels) * FEATURE_STEP
    voxels = int(sizes.sum())  # before merging adds them up

    def touch(small: np.ndarray, starts: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
        ends = torch.from_numpy(starts).to(device, copy=True)
        flags = torch.from_numpy(small).to(device)
        neighbours = torch.empty(total, dtype=torch.int32, device=device)
        shape = (np.int32(n) for n in components.shape)
        blocks = _cuda.blocks(components.numel(), _THREADS)
        _launch(channels, "touch", blocks, components, components, flags, ends, neighbours, *shape)
        return neighbours.cpu().numpy(), ends.cpu().numpy()

    number, left = merge_components(sizes, sums, min_size, enough, touch)
    return torch.from_numpy(number).to(device), left, voxels
