"""Contiguous supervoxel ids, for example after a crop has cut some supervoxels away."""

from typing import TypeVar

import numpy as np
import torch

from voxpool.errors import UsageError

Segments = TypeVar("Segments", np.ndarray, torch.Tensor)

# Ids are looked up in a table as long as the largest one, unless that is so many times the voxels.
_TABLE_PER_VOXEL = 8
_SMALL_TABLE = 1 << 20


def _by_table(segments: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    # One spare slot at the end: index -1 finds it, so that ignored voxels need no branch.
    present = np.zeros(size + 1, dtype=bool)
    present[segments.reshape(-1)] = True
    present[-1] = False
    new_id = np.cumsum(present, dtype=np.int32) - np.int32(1)
    new_id[-1] = -1
    return np.asarray(new_id[segments]), int(present.sum())


def _by_search(segments: np.ndarray) -> tuple[np.ndarray, int]:
    ids = np.unique(segments)
    ids = ids[ids >= 0]
    new_id = np.searchsorted(ids, segments).astype(np.int32)
    return np.where(segments < 0, np.int32(-1), new_id), len(ids)


def _compact_array(segments: np.ndarray, num_segments: int | None) -> tuple[np.ndarray, int]:
    low, high = (int(segments.min()), int(segments.max())) if segments.size else (-1, -1)
    size = high + 1 if num_segments is None else num_segments
    if low < -1 or high >= size:
        wanted = "-1 (ignored) and above" if num_segments is None else f"from -1 (ignored) to {size - 1}"
        raise UsageError(f"segments must hold ids {wanted}, got ids from {low} to {high}")
    if high + 1 > max(_SMALL_TABLE, _TABLE_PER_VOXEL * segments.size):
        return _by_search(segments)
    return _by_table(segments, high + 1)


def compact_segments(segments: Segments, num_segments: int | None = None) -> tuple[Segments, int]:
    """Renumber the ids that occur to 0..K'-1 in ascending order; -1 stays.

    Args:
        segments: Supervoxel ids >= -1, any shape, an integer array or tensor (a CUDA tensor is copied to the
            host and back).
        num_segments: Number of segments where it is known: ids must then lie below it.

    Returns:
        The renumbered ids, int32, of the same kind and shape, and K', the number of different ids >= 0.

    Raises:
        UsageError: If `segments` is not of an integer type, or an id is < -1 or >= `num_segments`.

    Example:
        >>> compact_segments(np.array([[7, 7, -1], [2, 9, 2]]))
        (array([[ 1,  1, -1],
               [ 0,  2,  0]], dtype=int32), 3)
    """
    if isinstance(segments, torch.Tensor):
        if segments.dtype == torch.bool or segments.dtype.is_floating_point or segments.dtype.is_complex:
            raise UsageError(f"segments must be of an integer type, got {segments.dtype}")
        compacted, count = _compact_array(segments.detach().cpu().numpy(), num_segments)
        return torch.from_numpy(compacted).to(segments.device), count
    if not np.issubdtype(segments.dtype, np.integer):
        raise UsageError(f"segments must be of an integer type, got {segments.dtype}")
    return _compact_array(segments, num_segments)


def parents_of(fine: torch.Tensor, coarse: torch.Tensor, num_segments: int) -> torch.Tensor:
    """The coarse segment that every fine one is part of, from two maps of the same voxels.

    Args:
        fine: Segment ids 0..K-1, -1 for none, any shape.
        coarse: Ids of the same shape; all voxels of a fine segment have the same.
        num_segments: K.

    Returns:
        (K,) int32: coarse ids made 0..K'-1, -1 for fine segments without voxels.
    """
    compacted, _ = compact_segments(coarse)
    parents = torch.full((num_segments,), -1, dtype=torch.int32, device=fine.device)
    inside = fine >= 0
    parents[fine[inside].long()] = compacted[inside].to(torch.int32)
    return parents
