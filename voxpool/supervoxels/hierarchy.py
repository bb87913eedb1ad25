"""Nested supervoxels: from fine to coarse, every coarse segment the union of fine ones.

Adjacent segments are merged by Ward's criterion: the pair whose union adds the least variance within segments first.
Pairs that are each other's best are merged together in one round, and the resulting tree is cut at the wanted numbers;
no merge counts as cheaper than those below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from voxpool.errors import UsageError
from voxpool.supervoxels._arrays import like, to_numpy


@dataclass(frozen=True)
class Hierarchy:
    """Coarser levels of a segmentation.

    Attributes:
        parents: Per level, from fine to coarse, the coarse id of every fine segment; (K,) int32. Coarse ids are 0..K'-1
            in the order of their first fine segment.
    """

    parents: tuple[np.ndarray, ...]

    def paint(self, level: int, segments: Any) -> Any:
        """Coarse segments of one level: the shape and kind of the fine `segments`, int32, -1 where they are -1."""
        ids = to_numpy(segments)
        return like(np.append(self.parents[level], np.int32(-1))[ids], segments)


def nest_segments(segments: Any, image: Any, counts: Sequence[int]) -> Hierarchy:
    """Merge adjacent segments of similar intensity into fewer and fewer.

    Determinism: equal bits from run to run; of equal costs the pair of the lowest ids is merged first.

    Args:
        segments: Fine segment ids 0..K-1, (H, W) or (D, H, W), NumPy or torch; -1 is outside the mask.
        image: Intensities of the same shape; with a leading axis of channels (C, *S) all of them count alike.
        counts: Numbers of segments wanted, falling. A level has more where islands of the mask cannot be joined, and
            no more than K.

    Returns:
        One level per count.

    Raises:
        UsageError: Shapes differ, a number does not fall, or the image is not finite inside the segments.
    """
    ids, values = to_numpy(segments), to_numpy(image)
    if values.ndim == ids.ndim:
        values = values[None]
    if values.shape[1:] != ids.shape:
        raise UsageError(f"image must have the shape of the segments, {ids.shape}, got {values.shape[1:]}.")
    if any(n < 1 for n in counts) or any(a < b for a, b in pairwise(counts)):
        raise UsageError(f"counts must be 1 or more and fall from fine to coarse, got {tuple(counts)}.")
    inside = ids >= 0
    flat, total = ids[inside].astype(np.int64), int(ids.max(initial=-1)) + 1
    sizes = np.bincount(flat, minlength=total)
    if not total or not sizes.all():
        raise UsageError("segments must hold every id from 0 on; compact_segments renumbers them.")
    sums = np.stack([np.bincount(flat, weights=channel[inside], minlength=total) for channel in values], axis=1)
    if not np.isfinite(sums).all():
        raise UsageError("the image has NaN or infinite voxels inside the segments; replace them first.")
    merges, heights = _merge_all(_adjacent(ids), sizes.astype(np.float64), sums)
    order = np.argsort(heights, kind="stable")
    return Hierarchy(tuple(_cut(merges[order[: max(0, total - n)]], total) for n in counts))


def _adjacent(ids: np.ndarray) -> np.ndarray:
    """Pairs (E, 2) of segments that share a face, the lower id first, in rising order."""
    base = int(ids.max()) + 1
    codes = []
    for axis in range(ids.ndim):
        low, high = (
            np.take(ids, range(start, ids.shape[axis] - 1 + start), axis).ravel().astype(np.int64) for start in (0, 1)
        )
        touch = (low != high) & (low >= 0) & (high >= 0)
        low, high = low[touch], high[touch]
        codes.append(np.unique(np.minimum(low, high) * base + np.maximum(low, high)))
    found = np.unique(np.concatenate(codes))
    return np.stack(np.divmod(found, base), axis=1)


def _merge_all(edges: np.ndarray, sizes: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge until no two segments touch; pairs (M, 2), each of the lowest ids of two groups, and their heights (M,).

    Merges of one tree come after those below them, and are no lower.
    """
    heights = np.zeros(len(sizes))
    merges, found = [np.empty((0, 2), np.int64)], [np.empty(0)]
    sizes, sums = sizes.copy(), sums.copy()
    while len(edges):
        a, b = edges.T
        gap = sums[a] / sizes[a, None] - sums[b] / sizes[b, None]
        cost = (gap**2).sum(axis=1) * sizes[a] * sizes[b] / (sizes[a] + sizes[b])
        best = _cheapest(edges, cost, len(sizes))
        number = np.arange(len(edges))
        mutual = (best[a] == number) & (best[b] == number)
        keep, drop = a[mutual], b[mutual]
        height = np.maximum(cost[mutual], np.maximum(heights[keep], heights[drop]))
        merges.append(edges[mutual])
        found.append(height)
        heights[keep] = height
        sizes[keep] += sizes[drop]
        sums[keep] += sums[drop]
        target = np.arange(len(sizes))
        target[drop] = keep
        edges = np.sort(target[edges], axis=1)
        edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    return np.concatenate(merges), np.concatenate(found)


def _cheapest(edges: np.ndarray, cost: np.ndarray, count: int) -> np.ndarray:
    """Number of the cheapest edge of every segment, the first of equal ones; -1 for one without edges."""
    order = np.argsort(cost, kind="stable")
    best = np.full(count, -1, np.int64)
    # written from the dearest to the cheapest, so that the cheapest stays
    backwards = order[::-1]
    best[edges[backwards].ravel()] = np.repeat(backwards, 2)
    return best


def _cut(merges: np.ndarray, count: int) -> np.ndarray:
    """Coarse id of every fine segment (count,) after some merges."""
    parent = np.arange(count)
    for low, high in merges:
        parent[high] = low
    # a merge's lowest id is the root of its group, so parents point downwards and doubling reaches the root
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return np.unique(parent, return_inverse=True)[1].astype(np.int32)
