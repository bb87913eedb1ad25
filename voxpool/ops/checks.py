"""What the public operations refuse, in one sentence each."""

import torch
from torch import Tensor

from voxpool.errors import UsageError
from voxpool.kernels.registry import FLOAT_DTYPES


def check_values(name: str, values: Tensor) -> None:
    """Refuse other than floating-point values."""
    if values.dtype not in FLOAT_DTYPES:
        wanted = ", ".join(str(dtype) for dtype in FLOAT_DTYPES)
        raise UsageError(f"{name} must be one of {wanted}, got {values.dtype}; use {name}.float()")


def check_segments(segments: Tensor, shape: torch.Size, device: torch.device) -> None:
    """Refuse segments of another shape, dtype or device than the values want."""
    if segments.shape != shape:
        raise UsageError(f"segments must have shape {tuple(shape)}, got {tuple(segments.shape)}")
    if segments.dtype not in (torch.int32, torch.int64):
        raise UsageError(f"segments must be torch.int32 or torch.int64, got {segments.dtype}; use segments.int()")
    if segments.device != device:
        raise UsageError(f"segments must be on {device} as the values are, got {segments.device}")


def check_num_segments(num_segments: int) -> None:
    """Refuse a number of segments that is no Python int of 0 or more."""
    # A tensor is refused rather than converted: reading it would make the host wait for the device.
    if isinstance(num_segments, bool) or not isinstance(num_segments, (int, torch.SymInt)):
        found = type(num_segments).__name__
        raise UsageError(f"num_segments must be a Python int, got {found}; keep the number beside the segments")
    if num_segments < 0:
        raise UsageError(f"num_segments must be 0 or more, got {num_segments}")


def check_ids(segments: Tensor, num_segments: int) -> None:
    """Refuse ids outside -1..num_segments-1; waits for the device."""
    if segments.numel() == 0:
        return
    low, high = (int(bound) for bound in segments.aminmax())
    if low < -1 or high >= num_segments:
        raise UsageError(
            f"segments must hold ids from -1 (ignored) to num_segments - 1 = {num_segments - 1}, "
            f"got ids from {low} to {high}; pass the right num_segments or use compact_segments"
        )
