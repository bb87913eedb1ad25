"""Contiguous supervoxel ids, e.g. after a crop has cut some supervoxels away."""

from typing import TypeVar

import numpy as np
import torch

from voxpool.errors import UsageError

Segments = TypeVar("Segments", np.ndarray, torch.Tensor)


def _compact_array(segments: np.ndarray, num_segments: int | None) -> tuple[np.ndarray, int]:
    high = int(segments.max(initial=-1))
    size = high + 1 if num_segments is None else num_segments
    low = int(segments.min(initial=-1))
    if low < -1 or high >= size:
        raise UsageError(
            f"segments must hold ids from -1 (ignored) to {size - 1}, got ids from {low} to {high}"
        )
    # One spare slot at the end: index -1 finds it, so that ignored voxels need no branch.
    present = np.zeros(size + 1, dtype=bool)
    present[segments.reshape(-1)] = True
    present[-1] = False
    new_id = np.cumsum(present, dtype=np.int32) - np.int32(1)
    new_id[-1] = -1
    return new_id[segments], int(present.sum())


def compact_segments(segments: Segments, num_segments: int | None = None) -> tuple[Segments, int]:
    """Renumber the ids that occur to 0..K'-1, in their old order; -1 stays.

    Args:
        segments: Supervoxel ids >= -1, any shape, an integer array or tensor.
        num_segments: Upper bound of the ids where it is known.

    Returns:
        The renumbered ids, int32 and of the same kind, and K', the number of different ids >= 0.

    Raises:
        UsageError: If `segments` is not of an integer type or an id is < -1 or >= `num_segments`.
    """
    if isinstance(segments, torch.Tensor):
        compacted, count = compact_segments(segments.detach().cpu().numpy(), num_segments)
        return torch.from_numpy(compacted).to(segments.device), count
    if not np.issubdtype(segments.dtype, np.integer):
        raise UsageError(f"segments must be of an integer type, got {segments.dtype}")
    return _compact_array(segments, num_segments)
