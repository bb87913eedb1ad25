"""Pooling kernels for the CPU, compiled by numba.

The work is cut into units of up to 16 channels by a part of the voxels. Each unit fills its own accumulators in
voxel order, and the parts are joined in order; the cut depends on the shapes alone. So the results have the same
bits for any number of threads. Within a unit W voxels of W channels are handled at once, see `vector_numba`; the
loops are in `unit_numba`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from voxpool.kernels import layout, threads, unit_numba
from voxpool.kernels.hugepages import advise

WIDTHS = (16, 8, 4, 1)
# A part must be so many times longer than its accumulators are, or joining would cost more than it saves.
_VOXELS_PER_SEGMENT = 4
# With so many it pays to look first which segments a part has: those of a slab are a range of the ids.
_VOXELS_PER_LOOK = 64
_PART_VOXELS = 1 << 14
_UNITS = 8

Tasks = list[Callable[[], None]]


@dataclass(frozen=True)
class _Unit:
    """Some channels of one sample: which, in how many vectors, and their width as the length of `lanes`."""

    sample: int
    channels: slice
    vectors: int
    lanes: tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """Some voxels of one sample, and the segments `first` to `first + count - 1` that they may have."""

    voxels: slice
    first: int
    count: int

    @property
    def shift(self) -> int | None:
        """What the vector code must subtract from ids; None for nothing."""
        return self.first or None


def _units(x: Tensor, *, clamp: bool) -> list[_Unit]:
    """Cut the channels into vectors; with `clamp` three channels may take a vector of four.

    Channels that lie together are read together: there a unit has as many vectors of one width as fit.
    """
    samples, channels, _ = x.shape
    together = layout.is_channels_last(x)
    widest = 8 if x.itemsize == 8 else 16
    cuts, start = [], 0
    while start < channels:
        left = channels - start
        three = clamp and not together and left == 3
        width = 4 if three else next(w for w in WIDTHS if w <= widest and w <= left)
        vectors = left // width if together else 1
        stop = min(start + vectors * width, channels)
        cuts.append((slice(start, stop), vectors, (0,) * width))
        start = stop
    return [_Unit(n, *cut) for n in range(samples) for cut in cuts]


def _cut(size: int, pieces: int) -> list[slice]:
    """Cut 0..size-1 into pieces of equal size, but for the last one, that fill whole vectors."""
    step = -(-size // max(1, pieces))
    step += -step % WIDTHS[0]
    return [slice(*bound) for bound in pairwise([*range(0, size, max(1, step)), size])] or [slice(0, 0)]


def _parts(segments: Tensor, units: int, num_segments: int) -> list[list[_Part]]:
    """Cut the voxels of each sample so that few units become enough for several threads.

    The cut depends on the shapes alone, for equal bits; the segments looked up only say where nothing is to be done.
    """
    size = segments.shape[1]
    pieces = min(-(-_UNITS // max(1, units)), size // _PART_VOXELS, size // (_VOXELS_PER_SEGMENT * (num_segments + 1)))
    cuts = _cut(size, pieces)
    found = np.array([[(0, num_segments - 1)] * len(cuts)] * len(segments))
    if size < _VOXELS_PER_LOOK * len(cuts) * num_segments:
        ids = segments.numpy()
        looks = [(ids[n, cut], found[n, i]) for n in range(len(segments)) for i, cut in enumerate(cuts)]
        threads.run([partial(unit_numba.id_range, *look) for look in looks], ids.size)
    return [
        [_Part(cut, int(low), int(high - low + 1)) for cut, (low, high) in zip(cuts, ranges, strict=True)]
        for ranges in found
    ]


def _joins(channels: int, num_segments: int) -> list[slice]:
    """Cut the segments for joining on several threads, where that pays."""
    return _cut(num_segments, _UNITS if channels * num_segments >= threads.SERIAL_SIZE else 1)


def _scratch(shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """Uninitialised memory on cache-line boundaries, as torch allocates it."""
    return torch.empty(shape, dtype=dtype).numpy()


def _array(tensor: Tensor) -> np.ndarray:
    """View a CPU tensor as an array; half precision as the integers that the vector code knows."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    if tensor.dtype == torch.float16:
        return tensor.view(torch.int16).numpy()
    return tensor.numpy()


def _maps(tensor: Tensor) -> np.ndarray:
    """View maps (N, C, P) as an array (2, N, C, P) that holds them twice, see `unit_numba`."""
    return _array(tensor.expand(2, *tensor.shape))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def plan(segments: Tensor, num_segments: int, space: tuple[int, ...]) -> list[Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.plan`: there is nothing to prepare."""
    return []


def segment_max(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_max`."""
    samples, channels, _ = x.shape
    wide = _wide(x.dtype)
    values = x.new_full((samples, channels, num_segments), -torch.inf, dtype=wide)
    argmax = torch.full(values.shape, -1)
    data, ids, maxima, places = _maps(x), _array(segments), _array(values), _array(argmax)
    units = _units(x, clamp=True)
    parts = _parts(segments, len(units), num_segments)
    filled: Tasks = []
    joined: Tasks = []
    for unit in units:
        n, c = unit.sample, unit.channels
        blocks = []
        for part in parts[n]:
            shape = (unit.vectors, part.count + 1, len(unit.lanes))
            best, where = _scratch(shape, wide), _scratch(shape, torch.int32)
            voxels = data[:, n, c, part.voxels], ids[n, part.voxels]
            filled.append(partial(unit_numba.fill_maxima, *voxels, part.shift, best, where, unit.lanes))
            blocks.append((best, where, part.first, part.voxels.start))
        for rows in _joins(channels, num_segments):
            targets = rows.start, maxima[n, c, rows], places[n, c, rows]
            joined.append(_in_order([partial(unit_numba.join_maxima, *block, *targets) for block in blocks]))
    threads.run(filled, x.numel())
    threads.run(joined, values.numel())
    missed = argmax < 0
    if bool(missed.any()):
        _take_first_of_minus_infinity(segments, values, argmax, missed)
    return values.to(x.dtype), argmax


def _take_first_of_minus_infinity(segments: Tensor, values: Tensor, argmax: Tensor, missed: Tensor) -> None:
    """Where nothing is above -inf, it is the maximum from the first voxel on; an empty segment has 0."""
    first = torch.empty((len(segments), argmax.shape[2]), dtype=torch.int64)
    rows = zip(segments.numpy(), first.numpy(), strict=True)
    threads.run([partial(unit_numba.first_voxels, *row) for row in rows], segments.numel())
    found = first.unsqueeze(1).expand_as(argmax)
    argmax[missed] = found[missed]
    values[argmax < 0] = 0


def _in_order(tasks: Tasks) -> Callable[[], None]:
    """One task of several."""

    def run() -> None:
        for task in tasks:
            task()

    return run


def _totals(x: Tensor, segments: Tensor, num_segments: int, more: Sequence[Callable[[], None]]) -> Tensor:
    """Sums (N, C, K) in float64; `more` is done beside."""
    samples, channels, _ = x.shape
    totals = torch.zeros((samples, channels, num_segments), dtype=torch.float64)
    data, ids, out = _maps(x), _array(segments), _array(totals)
    units = _units(x, clamp=True)
    parts = _parts(segments, len(units), num_segments)
    filled: Tasks = list(more)
    joined: Tasks = []
    for unit in units:
        n, c = unit.sample, unit.channels
        blocks = []
        for part in parts[n]:
            sums = _scratch((unit.vectors, part.count + 1, len(unit.lanes)), torch.float64)
            voxels = data[:, n, c, part.voxels], ids[n, part.voxels]
            filled.append(partial(unit_numba.fill_totals, *voxels, part.shift, sums, unit.lanes))
            blocks.append((sums, part.first))
        for rows in _joins(channels, num_segments):
            targets = rows.start, out[n, c, rows]
            joined.append(_in_order([partial(unit_numba.join_totals, *block, *targets) for block in blocks]))
    threads.run(filled, x.numel())
    threads.run(joined, totals.numel())
    return totals


def segment_sum(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.segment_sum`."""
    return _totals(x, segments, num_segments, []).to(x.dtype)


def segment_mean(x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
    """See `voxpool.kernels.registry.PoolKernels.segment_mean`."""
    counts = torch.empty((len(segments), num_segments + 1), dtype=torch.int64)
    rows = zip(segments.numpy(), counts.numpy(), strict=True)
    totals = _totals(x, segments, num_segments, [partial(unit_numba.count_voxels, *row) for row in rows])
    inside = counts[:, 1:].contiguous()
    return totals.div_(inside.clamp(min=1).unsqueeze(1)).to(x.dtype), inside


def unpool(pooled: Tensor, segments: Tensor, base: Tensor | None, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.unpool`."""
    samples, channels, num_segments = pooled.shape
    size = segments.shape[1]
    out = advise(layout.empty(pooled, (samples, channels, size), channels_last=channels_last))
    wide = pooled.to(_wide(pooled.dtype)).numpy()
    ids, target = _array(segments), _maps(out)
    under = None if base is None else _maps(layout.arrange(base, channels_last=channels_last))
    units = _units(out, clamp=False)
    parts = _parts(segments, len(units), num_segments)

    def write(unit: _Unit, part: _Part) -> None:
        n, c = unit.sample, unit.channels
        table = _scratch((unit.vectors, part.count + 1, len(unit.lanes)), _wide(pooled.dtype))
        unit_numba.fill_table(wide[n, c], part.first, table)
        place = slice(None), n, c, part.voxels
        below = None if under is None else under[place]
        unit_numba.write_voxels(table, ids[n, part.voxels], part.shift, below, target[place], unit.lanes)

    threads.run([partial(write, unit, part) for unit in units for part in parts[unit.sample]], out.numel())
    return out


def scatter(pooled: Tensor, argmax: Tensor, size: int, channels_last: bool) -> Tensor:
    """See `voxpool.kernels.registry.PoolKernels.scatter`."""
    samples, channels, _ = pooled.shape
    out = advise(layout.empty(pooled, (samples, channels, size), channels_last=channels_last))
    values, where, target = _array(pooled.contiguous()), _array(argmax.contiguous()), _array(out)
    rows = [(n, c) for n in range(samples) for c in range(channels)]

    def clear(n: int, voxels: slice) -> None:
        target[n, :, voxels] = 0

    def write(n: int, c: int) -> None:
        if not channels_last:
            target[n, c] = 0
        unit_numba.scatter_row(values[n, c], where[n, c], target[n, c])

    if channels_last:
        threads.run([partial(clear, n, cut) for n in range(samples) for cut in _cut(size, _UNITS)], out.numel())
        threads.run([partial(write, *row) for row in rows], pooled.numel())
    else:
        threads.run([partial(write, *row) for row in rows], out.numel())
    return out
