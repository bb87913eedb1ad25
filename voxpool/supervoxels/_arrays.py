"""Arguments of the supervoxel functions: NumPy or torch in, NumPy inside, the caller's kind out."""

import sys
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from voxpool.errors import UsageError


def is_tensor(array: Any) -> bool:
    """Whether this is a torch tensor; does not import torch, as nobody can hold a tensor without it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: Any) -> np.ndarray:
    """The array on the host; bfloat16, which NumPy does not have, becomes float32."""
    if not is_tensor(array):
        return np.asarray(array)
    tensor = array.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def like(result: np.ndarray, source: Any) -> Any:
    """The result as the kind, and on the device, of the source."""
    if not is_tensor(source):
        return result
    return sys.modules["torch"].from_numpy(result).to(source.device)


def check_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """One positive, finite number of mm per axis; all 1 when there is none."""
    if spacing is None:
        return (1.0,) * ndim
    values = tuple(float(s) for s in spacing)
    if len(values) != ndim or not all(np.isfinite(s) and s > 0 for s in values):
        raise UsageError(f"spacing must be {ndim} positive numbers (mm per voxel, one per spatial axis), got {values}.")
    return values


def check_mask(mask: Any, shape: tuple[int, ...], device: Any = None) -> Any:
    """A boolean mask of the given shape with at least one voxel; all true when there is none.

    NumPy; or torch on a device, where one is given.
    """
    xp: Any = np if device is None else sys.modules["torch"]
    place = {} if device is None else {"device": device}
    if mask is None:
        return xp.ones(shape, dtype=xp.bool, **place)
    array: Any = to_numpy(mask) if device is None else xp.as_tensor(mask, device=device)
    if tuple(array.shape) != tuple(shape):
        raise UsageError(f"mask must have the shape of the image, {tuple(shape)}, got {tuple(array.shape)}.")
    array = array.astype(bool) if device is None else array.to(xp.bool)
    if not array.any():
        raise UsageError("mask is empty: it must be true in at least one voxel.")
    return array


def check_count(n_segments: int, voxels: int) -> int:
    """A number of segments that so many voxels can form."""
    if not isinstance(n_segments, Integral) or isinstance(n_segments, bool) or n_segments < 1:
        raise UsageError(f"n_segments must be a whole number of at least 1, got {n_segments!r}.")
    if n_segments > voxels:
        raise UsageError(f"n_segments is {n_segments}, but there are only {voxels} voxels to group: ask for fewer.")
    return int(n_segments)


def bounding_box(mask: Any) -> tuple[slice, ...]:
    """The smallest box that holds every true voxel of a mask, NumPy or torch."""
    box = []
    for axis in range(mask.ndim):
        used = mask
        for other in reversed([a for a in range(mask.ndim) if a != axis]):
            used = used.any(other)
        used = np.flatnonzero(to_numpy(used))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
