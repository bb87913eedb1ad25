"""Differentiable operations on supervoxels: pool, unpool, renumber."""

from voxpool.ops.relabel import compact_segments
from voxpool.ops.segment_pool import segment_pool, segment_unpool

__all__ = ["compact_segments", "segment_pool", "segment_unpool"]
