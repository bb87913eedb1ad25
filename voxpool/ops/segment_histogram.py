"""How often each class occurs in each supervoxel: all that a loss on supervoxels needs to know of the voxels."""

import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.ops.checks import check_ids, check_num_segments, check_segments


def segment_histogram(target: Tensor, segments: Tensor, num_segments: int, num_classes: int) -> Tensor:
    """Count the voxels of every class in every supervoxel.

    Determinism: exact integers, on every device.

    Args:
        target: Class ids 0 to num_classes - 1, (N, *S), an integer type.
        segments: Supervoxel ids, (N, *S), 0 to num_segments - 1 or -1 (ignored); int32 or int64. On the CPU ids
            and classes are checked; on other devices, where that would wait for the device, a wrong id counts as
            -1 and a voxel of a wrong class is left out.
        num_segments: Number of supervoxels K, a Python int.
        num_classes: Number of classes.

    Returns:
        Counts, (N, num_classes, K + 1), int64; the last column counts the voxels with id -1.

    Raises:
        UsageError: If a shape, type, id or class does not fit.

    Example:
        >>> segments = torch.tensor([[0, 0, 1, -1]])
        >>> segment_histogram(torch.tensor([[1, 0, 1, 1]]), segments, 2, 2)
        tensor([[[1, 0, 0],
                 [1, 1, 1]]])
    """
    check_segments(segments, target.shape, target.device)
    check_num_segments(num_segments)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise UsageError(f"target must hold class ids of an integer type, got {target.dtype}; use target.long()")
    if target.device.type == "cpu":
        check_ids(segments, num_segments)
        _check_classes(target, num_classes)
    return _count(target, segments, num_segments, num_classes)


def _count(target: Tensor, segments: Tensor, num_segments: int, num_classes: int) -> Tensor:
    samples, rows, columns = len(target), num_classes + 2, num_segments + 1
    # wrong ids join -1 in the last column, wrong classes go to a row before or after those that are returned
    column = segments.clamp(-1, num_segments).remainder(columns)
    row = target.long().clamp(-1, num_classes) + 1
    row += rows * torch.arange(samples, device=target.device).view(-1, *[1] * (target.ndim - 1))
    place = row.mul_(columns).add_(column).flatten()
    counts = torch.zeros(samples * rows * columns, dtype=torch.int64, device=target.device)
    # torch.bincount would read the largest place and so wait for the device
    counts.index_add_(0, place, torch.ones((), dtype=torch.int64, device=target.device).expand_as(place))
    return counts.view(samples, rows, columns)[:, 1:-1].contiguous()


def _check_classes(target: Tensor, num_classes: int) -> None:
    if target.numel() == 0:
        return
    low, high = (int(bound) for bound in target.aminmax())
    if low < 0 or high >= num_classes:
        raise UsageError(f"target must hold classes from 0 to num_classes - 1 = {num_classes - 1}, got {low} to {high}")
