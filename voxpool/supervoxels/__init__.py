"""Supervoxels: connected groups of similar voxels, and how well they can represent a label map."""

from voxpool.supervoxels.blocks import blocks
from voxpool.supervoxels.choose import ChosenSegments, choose_n_segments
from voxpool.supervoxels.oracle import oracle_dice, oracle_labels
from voxpool.supervoxels.slic import slic

__all__ = ["ChosenSegments", "blocks", "choose_n_segments", "oracle_dice", "oracle_labels", "slic"]
