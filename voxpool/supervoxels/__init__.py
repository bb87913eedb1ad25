"""Supervoxels: connected groups of similar voxels, and how well they can represent a label map."""

from voxpool.supervoxels.blocks import blocks
from voxpool.supervoxels.choose import ChosenSegments, choose_n_segments
from voxpool.supervoxels.hierarchy import Hierarchy, nest_segments
from voxpool.supervoxels.oracle import oracle_dice, oracle_labels
from voxpool.supervoxels.quality import SegmentQuality, measure_segments
from voxpool.supervoxels.slic import slic

__all__ = [
    "ChosenSegments",
    "Hierarchy",
    "SegmentQuality",
    "blocks",
    "choose_n_segments",
    "measure_segments",
    "nest_segments",
    "oracle_dice",
    "oracle_labels",
    "slic",
]
