"""Class ids of a preprocessed image: by the whole volume, or by tiles with the same result."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from voxpool.engine import memory_format
from voxpool.errors import Cancelled, InputError, ResourceError, UsageError
from voxpool.nets import MonaiNet, SupervoxelNet
from voxpool.nets.guided import merge_scores
from voxpool.nets.heads import BaseNet, Reduce, join_moments
from voxpool.ops import compact_segments, parents_of, segment_pool

# share of the free memory that a network may take, and how many feature volumes are alive at its peak
MEMORY_SHARE = 0.5
LIVE_FEATURES = 3.0
SLAB_VOXELS = 2_000_000
SMALLEST_TILE = 16
"""Below, the margins would cost more than the tiles save."""

_NO_MEMORY = "not enough memory"  # torch's words on a CPU, where it raises nothing of its own


@dataclass(frozen=True)
class Tile:
    """A part of a volume.

    Attributes:
        window: What the network sees: the core with its margin, inside the volume.
        core: The core inside the window.
        place: The core inside the volume.
    """

    window: tuple[slice, ...]
    core: tuple[slice, ...]
    place: tuple[slice, ...]


@dataclass(frozen=True)
class Decided:
    """The labels of a volume as they are found.

    Attributes:
        labels: Class ids, (*S), uint8.
        confidence: Probability of every voxel's class in steps of 1/255, (*S), uint8, or None.
        merged: The class that each of the network's becomes; probabilities of merged classes add up.
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None
    merged: Sequence[int] | None = None

    def add(self, scores: Tensor, place: tuple[slice, ...]) -> None:
        """Decide a part of the volume by its class scores (C, *T): the highest, the first of equals."""
        if self.merged is not None:
            scores = merge_scores(scores.float(), self.merged)
        self.labels[place] = scores.argmax(0).to(torch.uint8).cpu().numpy()
        if self.confidence is not None:
            sure = (scores.amax(0).float() - scores.float().logsumexp(0)).exp_().mul_(255).round_()
            self.confidence[place] = sure.to(torch.uint8).cpu().numpy()


class Averaged:
    """Class probabilities of a volume, added up over the networks that are asked together.

    Args:
        num_classes: Number of classes that the networks score.
        shape: Shape of the volume.
    """

    def __init__(self, num_classes: int, shape: Sequence[int]) -> None:
        self._sum = torch.zeros((num_classes, *shape))

    def add(self, scores: Tensor, place: tuple[slice, ...]) -> None:
        """Count in what a network says of a part of the volume by its class scores (C, *T)."""
        self._sum[(slice(None), *place)] += scores.float().softmax(0).cpu()

    def decide(self, decided: Decided) -> None:
        """Decide every voxel by the mean of the probabilities."""
        for slab in _slabs(self._sum.shape[1:]):
            decided.add(self._sum[:, slab].log(), (slab,))


@torch.inference_mode()
def predict(
    net: nn.Module,
    image: Tensor,
    segments: np.ndarray | None,
    *,
    device: torch.device,
    bf16: bool,
    tile: int | None = None,
    into: Decided | Averaged | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> np.ndarray:
    """Class ids of a preprocessed image, by the highest score (the lowest id of equals).

    Every tile is computed with a margin of the network's receptive field, so that its core is what the whole volume
    gives. A supervoxel head pools over all cores before it classifies: max, and sums with counts, join exactly.

    Args:
        net: Network in evaluation mode on `device`.
        image: Normalised intensities, (C, *S), sizes multiples of the network's stride.
        segments: Supervoxel ids, (*S) or of two levels (2, *S), for a `SupervoxelNet`.
        device: Where to compute.
        bf16: Whether to compute in bfloat16.
        tile: Side of the cores in voxels, or None to choose by memory.
        into: Where the result goes, for merged classes, to know how sure each voxel is, or for several networks.
        progress: Called with the fraction done.
        cancelled: Asked before each tile.

    Returns:
        Class ids, (*S), uint8; nothing decided yet where several networks are asked.
    """
    shape = tuple(image.shape[1:])
    parts = cast(BaseNet, net)
    core = _round_up(tile, parts.stride) if tile else _core_by_memory(net, shape, device, 2 if bf16 else 4)
    tiles = list(_tiles(shape, core, _round_up(parts.receptive_radius, parts.stride)))

    def inputs() -> Iterator[tuple[Tensor, Tile]]:
        for number, part in enumerate(tiles):
            if cancelled and cancelled():
                raise Cancelled(f"segmentation stopped after {number} of {len(tiles)} tiles")
            yield image[(slice(None), *part.window)][None].to(device, memory_format=memory_format(net)), part
            if progress:
                progress((number + 1) / len(tiles))

    with torch.autocast(device.type, torch.bfloat16, enabled=bf16), _watched(net, tiles, progress, cancelled):
        labels = np.zeros(shape, np.uint8)
        decided = into or Decided(labels)
        if not isinstance(net, SupervoxelNet):
            _label_voxels(net, inputs(), decided)
        elif segments is None:
            raise UsageError("a network with a supervoxel head needs segments, got none; pass those of the image")
        else:
            _label_supervoxels(net, inputs(), segments.reshape(-1, *shape), decided)
        return decided.labels if isinstance(decided, Decided) else labels


def _watched(
    net: nn.Module,
    tiles: Sequence[Tile],
    progress: Callable[[float], None] | None,
    cancelled: Callable[[], bool] | None,
) -> AbstractContextManager[None]:
    """Tell of every window, and ask before it, where a tile has many."""
    if not isinstance(net, MonaiNet):
        return nullcontext()
    total = sum(net.count_windows([part.stop - part.start for part in tile.window]) for tile in tiles)
    numbers = itertools.count()

    def before_window() -> None:
        done = next(numbers)
        if cancelled and cancelled():
            raise Cancelled(f"segmentation stopped after {done} of {total} windows")
        if progress:
            progress(done / total)

    return net.watched(before_window)


def _label_voxels(net: nn.Module, inputs: Iterator[tuple[Tensor, Tile]], decided: Decided | Averaged) -> None:
    for x, tile in inputs:
        decided.add(net(x)[0][(slice(None), *tile.core)], tile.place)


def _label_supervoxels(
    net: SupervoxelNet, inputs: Iterator[tuple[Tensor, Tile]], segments: np.ndarray, decided: Decided | Averaged
) -> None:
    """Pool over all tiles first; V3's own voxel scores are kept until the supervoxels are classified."""
    levels, segments = segments, segments[0]
    pooled = _PooledFeatures(net.reduce, int(segments.max()) + 1)
    scores: Tensor | None = None
    dtype = torch.float32
    for x, tile in inputs:
        maps, own = net.voxel_maps(x)
        pooled.add([m[(slice(None), slice(None), *tile.core)] for m in maps], segments[tile.place])
        dtype = maps[0].dtype
        if own is not None:
            if scores is None:
                scores = torch.empty((own.shape[1], *segments.shape), dtype=own.dtype)
            scores[(slice(None), *tile.place)] = own[0][(slice(None), *tile.core)].cpu()
    joined, parents = pooled.result(), None
    if len(levels) > 1:
        fine, coarse = (torch.from_numpy(np.ascontiguousarray(level)) for level in levels[:2])
        parents = parents_of(fine, coarse, joined.shape[-1])[None].to(joined.device)
    classified = net.classify(net.join_levels(joined, parents))[0]
    _decide_slabs(segments, classified.to(dtype).cpu(), scores, decided)


class _PooledFeatures:
    """Pooled features of a volume, joined over its tiles: maxima directly, all else from sums and counts."""

    def __init__(self, reduce: Reduce, num_segments: int) -> None:
        self.reduce, self.num_segments = reduce, num_segments
        self._parts: dict[str, Tensor] = {}
        self._counts = torch.zeros(0)

    def add(self, maps: Sequence[Tensor], segments: np.ndarray) -> None:
        """Join the maps (1, C_i, *T) of a tile with segments (*T)."""
        device = maps[0].device
        ids = np.unique(segments)
        ids = ids[ids >= 0]
        compacted, count = compact_segments(torch.from_numpy(np.ascontiguousarray(segments)))
        if not count:
            return
        local = compacted[None].to(device)
        where = torch.from_numpy(ids.astype(np.int64)).to(device)
        for name, of_map in _PARTS[self.reduce].items():
            highest = name == "max"
            joined = [segment_pool(of_map(m), local, count, reduce="max" if highest else "sum") for m in maps]
            values = torch.cat(joined, dim=1)
            if name not in self._parts:
                fill = float("-inf") if highest else 0.0
                self._parts[name] = values.new_full((1, values.shape[1], self.num_segments), fill)
            before = self._parts[name][:, :, where]
            self._parts[name][:, :, where] = torch.maximum(before, values) if highest else before + values
        if not len(self._counts):
            self._counts = torch.zeros(self.num_segments, device=device)
        self._counts[where] += torch.bincount(local[local >= 0].flatten().long(), minlength=count).float()

    def result(self) -> Tensor:
        """Pooled features (1, C, K)."""
        if not self._parts:
            raise InputError("the image has no supervoxel: its foreground is empty; check the file")
        there, voxels = self._counts > 0, self._counts.clamp_min(1)
        if self.reduce == "sum":
            return self._parts["sum"]
        if self.reduce == "mean":
            return self._parts["sum"] / voxels
        maxima = torch.where(there, self._parts["max"], 0.0)
        if self.reduce == "max":
            return maxima
        return join_moments(maxima, self._parts["sum"] / voxels, self._parts["squares"] / voxels)


# what is joined over the tiles, and of what map; partial sums are rounded once, at the end
_PARTS: dict[Reduce, dict[str, Callable[[Tensor], Tensor]]] = {
    "max": {"max": lambda m: m},
    "sum": {"sum": lambda m: m.float()},
    "mean": {"sum": lambda m: m.float()},
    "moments": {"max": lambda m: m, "sum": lambda m: m.float(), "squares": lambda m: m.float().square()},
}


def _decide_slabs(segments: np.ndarray, classified: Tensor, scores: Tensor | None, decided: Decided | Averaged) -> None:
    """Slab by slab, so that no full-size float volume arises."""
    # column 0 serves the voxels without supervoxel
    table = torch.cat([torch.zeros_like(classified[:, :1]), classified], dim=1)  # (num_classes, 1 + K)
    for slab in _slabs(segments.shape):
        total = table[:, torch.from_numpy(segments[slab].astype(np.int64) + 1)]
        if scores is not None:
            total = scores[:, slab] + total
        decided.add(total, (slab,))


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the first axis that are small enough for float numbers of every class."""
    thickness = max(1, SLAB_VOXELS // max(1, int(np.prod(shape[1:]))))
    for first in range(0, shape[0], thickness):
        yield slice(first, first + thickness)


def smaller_tiles(net: nn.Module, shape: Sequence[int], tile: int | None) -> list[int | None]:
    """Sides of tiles to try one after the other when memory runs out: the one asked for, then always half of it."""
    stride = cast(BaseNet, net).stride
    sides: list[int | None] = [tile]
    side = tile or max(shape)
    while (half := _round_up(side // 2, stride)) < side and half >= SMALLEST_TILE:
        sides.append(half)
        side = half
    return sides


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was too small, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _NO_MEMORY in str(error)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _tiles(shape: tuple[int, ...], core: int | tuple[int, ...], margin: int) -> Iterator[Tile]:
    """The tiles of a volume, in the order of its axes."""
    cores = core if isinstance(core, tuple) else (core,) * len(shape)
    starts = [range(0, size, side) for size, side in zip(shape, cores, strict=True)]
    for corner in itertools.product(*starts):
        window, inner, place = [], [], []
        for first, side, size in zip(corner, cores, shape, strict=True):
            last = min(first + side, size)
            low, high = max(0, first - margin), min(size, last + margin)
            window.append(slice(low, high))
            inner.append(slice(first - low, last - low))
            place.append(slice(first, last))
        yield Tile(tuple(window), tuple(inner), tuple(place))


def _core_by_memory(
    net: nn.Module, shape: tuple[int, ...], device: torch.device, item_bytes: int
) -> int | tuple[int, ...]:
    """The whole volume where its features fit into memory, else the largest cubic core that does."""
    parts = cast(BaseNet, net.base if isinstance(net, SupervoxelNet) else net)
    per_voxel = LIVE_FEATURES * parts.feature_channels * item_bytes
    voxels = MEMORY_SHARE * _free_bytes(device) / per_voxel
    if np.prod(shape) <= voxels:
        return shape
    margin = 2 * _round_up(parts.receptive_radius, parts.stride)
    core = (int(voxels ** (1 / len(shape))) - margin) // parts.stride * parts.stride
    if core < parts.stride:
        smallest = margin + parts.stride
        raise ResourceError(
            f"not enough memory: a tile of {smallest} voxels a side needs"
            f" {per_voxel * smallest ** len(shape) / 2**30:.1f} GiB; close other programs or take a smaller net"
        )
    return core


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
