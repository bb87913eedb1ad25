"""SLIC for NVIDIA GPUs: launches `cuda/slic.cu` through CuPy on torch's memory and stream.

The labels have the bits of the CPU kernels. The device is waited for once for the number of components and once per
round of merging, beside what arguments are checked for.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels import _cuda
from voxpool.kernels.slic_rules import MAX_VALUE, CellCounter, check_usable, percentile_ranks, percentile_stride

_THREADS = 256
_MOST_ASSIGNING = 128
_VOXELS, _PART, _STRETCH = 4, 2048, 8
"""As in `cuda/slic.cu`: voxels of a thread and of a block that assigns, voxels in a row that a thread adds up."""

_SHAPED = ("assign", "move", "renumber", "start_round", "look_around", "end_round")


def kernel_names(channels: int) -> tuple[str, ...]:
    """The kernels for images of so many channels."""
    shaped = tuple(f"{name}<{channels}>" for name in _SHAPED)
    return (*shaped, "scale", "count_cells", "runs", "join_runs", "flatten", "join_groups")


def _launch(
    channels: int,
    kernel: str,
    grid: int | tuple[int, ...],
    like: Tensor,
    *args: Tensor | np.generic | None,
    threads: int = _THREADS,
    shared_mem: int = 0,
) -> None:
    """Run a kernel on the device of `like`."""
    module = _cuda.module("slic.cu", kernel_names(channels), like.device)
    values = tuple(_cuda.address(a) if a is None or isinstance(a, Tensor) else a for a in args)
    size = (grid,) if isinstance(grid, int) else grid
    module.get_function(kernel.format(channels))(size, (threads,), values, shared_mem=shared_mem)


def scale(channel: Tensor, inside: Tensor) -> Tensor:
    """See `voxpool.kernels.slic_rules.SlicKernels.scale`."""
    _check_size(channel)
    whole = bool(inside.all())
    values = channel.flatten() if whole else channel[inside]
    if not values.is_floating_point():
        values = values.to(torch.float64)  # torch does not sort every type of integer
    some = values[:: percentile_stride(len(values))].sort().values
    ranks = torch.tensor(percentile_ranks(len(some)), device=some.device)
    values = values.to(torch.float64)
    percentiles, extremes = some[ranks].to(torch.float64), torch.stack(values.aminmax())
    limits = torch.where(percentiles[0] == percentiles[1], extremes, percentiles)
    check_usable(len(values) - int((values.abs() <= MAX_VALUE).sum()))
    out = torch.empty(channel.shape, dtype=torch.float32, device=channel.device)
    # values, inside and limits must live until the kernel is launched: the stream keeps them afterwards
    everywhere, mask = channel.to(torch.float64).contiguous(), inside.contiguous()
    blocks = _cuda.blocks(out.numel(), _THREADS)
    _launch(1, "scale", blocks, out, everywhere, mask, limits, out, np.int64(out.numel()))
    return out


def cell_counter(inside: Tensor) -> CellCounter:
    """See `voxpool.kernels.slic_rules.SlicKernels.cell_counter`."""
    summed = inside
    for axis in range(3):
        summed = summed.cumsum(axis, dtype=torch.int32)
    _, height, width = (np.int32(n) for n in inside.shape)

    def count(grids: Sequence[Sequence[np.ndarray]]) -> list[int]:
        lengths = [sum(map(len, edges)) for edges in grids]
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        heads = [(*(len(e) - 1 for e in edges), start) for edges, start in zip(grids, starts, strict=True)]
        numbers = [np.ravel(heads), *(e for edges in grids for e in edges)]
        sent = torch.from_numpy(np.concatenate(numbers).astype(np.int32)).to(inside.device)
        counts = torch.zeros(len(grids), dtype=torch.int32, device=inside.device)
        plane = (_cuda.blocks(max(z * y * x for z, y, x, _ in heads), _THREADS), len(grids))
        _launch(1, "count_cells", plane, summed, summed, sent, sent[4 * len(grids) :], counts, height, width)
        found: list[int] = counts.tolist()
        return found

    return count


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
    components, first_voxels = _roots(segments, len(features))
    count, device = len(first_voxels), components.device
    table = torch.empty(components.numel(), dtype=torch.int32, device=device)
    table[first_voxels] = torch.arange(count, dtype=torch.int32, device=device)
    groups = _Groups(components, features, table, count)
    while groups.merge_below(min_size):
        pass
    while groups.count > most and groups.merge_smallest(most):
        pass
    _renumber(components, features, groups.numbers(), None, None)
    return components, groups.count


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


def _renumber(ids: Tensor, features: Tensor, table: Tensor, sizes: Tensor | None, sums: Tensor | None) -> None:
    blocks = _cuda.blocks(ids.numel(), _THREADS * _STRETCH)
    arrays = (ids, table, features, sizes, sums)
    _launch(len(features), "renumber<{}>", blocks, ids, *arrays, np.int32(ids.numel()))


class _Groups:
    """Components that merge, on the device.

    Attributes:
        count: Number of groups that are left.
    """

    def __init__(self, voxels: Tensor, features: Tensor, table: Tensor, count: int) -> None:
        """Number the voxels' ids by a table, and let every component be a group."""
        device, self._channels = voxels.device, len(features)
        self.count, self._voxels = count, voxels
        self._sizes = torch.zeros(count, dtype=torch.int64, device=device)
        self._sums = torch.zeros((count, self._channels), dtype=torch.int64, device=device)
        _renumber(voxels, features, table, self._sizes, self._sums)
        self._inside = self._sizes.sum()
        self._groups = torch.arange(count, dtype=torch.int32, device=device)
        self._root = torch.ones(count, dtype=torch.bool, device=device)
        self._marked = torch.empty_like(self._root)
        self._means = torch.empty(self._sums.shape, dtype=torch.float64, device=device)
        self._nearest = torch.empty_like(self._sizes)
        self._targets = torch.empty_like(self._groups)

    def merge_below(self, limit: float) -> bool:
        """Let every group below a size join its nearest neighbour; whether any did."""
        self._start(limit)
        self._look(choose=False)
        return self._join()

    def merge_smallest(self, most: int) -> bool:
        """Let the smallest groups join, as many as are more than `most`; whether any did."""
        self._start(int(self._inside) / most)
        self._look(choose=False)
        able = self._marked & (self._nearest >= 0)  # all bits are set, which is -1, where no neighbour was found
        order = self._sizes.where(able, torch.iinfo(torch.int64).max).sort(stable=True).indices
        chosen = order[: self.count - most]
        self._marked = torch.zeros_like(able).index_put((chosen,), able[chosen])
        return self._join()

    def numbers(self) -> Tensor:
        """The rank of each component's group."""
        ranks = self._root.cumsum(0, dtype=torch.int32) - 1
        return ranks[self._groups]

    def _run(self, kernel: str, *args: Tensor | np.generic, over: int | None = None) -> None:
        blocks = _cuda.blocks(over or len(self._groups), _THREADS)
        _launch(self._channels, kernel, blocks, self._groups, *args)

    def _start(self, limit: float) -> None:
        arrays = (self._means, self._nearest, self._targets, self._marked)
        numbers = (np.float64(limit), *arrays, np.int32(len(self._groups)))
        self._run("start_round<{}>", self._groups, self._sizes, self._sums, *numbers)

    def _look(self, *, choose: bool) -> None:
        arrays = (self._voxels, self._groups, self._marked, self._means, self._nearest, self._targets)
        numbers = (np.int32(n) for n in (choose, *self._voxels.shape))
        self._run("look_around<{}>", *arrays, *numbers, over=self._voxels.numel())

    def _join(self) -> bool:
        self._look(choose=True)
        size = np.int32(len(self._groups))
        self._run("join_groups", self._groups, self._marked, self._targets, size)
        joined = torch.zeros(1, dtype=torch.int32, device=self._groups.device)
        self._run("end_round<{}>", self._groups, self._root, self._sizes, self._sums, joined, size)
        fewer = int(joined)
        self.count -= fewer
        return fewer > 0
