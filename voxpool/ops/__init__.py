"""Differentiable operations on supervoxels: pool, unpool, count, renumber."""

from voxpool.ops.relabel import compact_segments, parents_of
from voxpool.ops.segment_histogram import segment_histogram
from voxpool.ops.segment_pool import segment_pool, segment_unpool
from voxpool.ops.supervoxels import Supervoxels

__all__ = ["Supervoxels", "compact_segments", "parents_of", "segment_histogram", "segment_pool", "segment_unpool"]
