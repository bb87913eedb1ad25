"""Which implementation of the pooling kernels runs: the first backend that fits device and dtype.

A backend is a module with the functions of `PoolKernels`. It is imported when it is first used, so that
`import voxpool.ops` pays neither for numba nor for SciPy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

from voxpool.errors import UsageError

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class PoolKernels(Protocol):
    """What every backend offers: flat tensors in, new tensors out.

    `x` (N, C, P) is contiguous or channels-last (strides (C * P, 1, C)), `segments` (N, P) is contiguous int32 with
    ids 0..K-1; every other id is ignored. Results have the dtype of the input. `plan` is what the backend's own
    `plan` made of the same segments, or empty: then the backend prepares what it needs.
    """

    def plan(self, segments: Tensor, num_segments: int, space: tuple[int, ...]) -> list[Tensor]:
        """Prepare segments (N, P) of a spatial shape for many calls: 1D int32 tensors, none where nothing helps."""

    def segment_max(self, x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the maxima (N, C, K), empty 0, and their positions (N, C, K) int64, empty -1."""

    def segment_sum(self, x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> Tensor:
        """Return the sums (N, C, K), empty 0."""

    def segment_mean(self, x: Tensor, segments: Tensor, num_segments: int, plan: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the means (N, C, K), empty 0, and the voxel counts (N, K) int64."""

    def unpool(self, pooled: Tensor, segments: Tensor, base: Tensor | None, channels_last: bool) -> Tensor:
        """Return `base + pooled[..., segments]` (N, C, P) in the layout asked for, 0 + base where the id is -1.

        `base` is None or as `x`, in either layout.
        """

    def scatter(self, pooled: Tensor, argmax: Tensor, size: int, channels_last: bool) -> Tensor:
        """Return zeros (N, C, size) with `pooled[n, c, k]` at `argmax[n, c, k]`, nowhere where that is -1.

        The gradient of the maximum; the positions of one sample and channel are distinct.
        """


@dataclass(frozen=True)
class Backend:
    """One implementation: its name, the module that holds it and what it refuses.

    Attributes:
        name: What a user passes as `backend=`.
        module: Import path of the kernels.
        refusal: Takes device type and dtype; returns the reason why the backend cannot run there, or None.
    """

    name: str
    module: str
    refusal: Callable[[str, torch.dtype], str | None]

    def kernels(self) -> PoolKernels:
        """Import and return the kernels."""
        return cast(PoolKernels, import_module(self.module))


def _refuse_other_dtypes(dtype: torch.dtype) -> str | None:
    if dtype in FLOAT_DTYPES:
        return None
    names = ", ".join(str(d).removeprefix("torch.") for d in FLOAT_DTYPES)
    return f"pools {names}, got {str(dtype).removeprefix('torch.')}"


def _refuse_numba(device: str, dtype: torch.dtype) -> str | None:
    if device != "cpu":
        return f"runs on cpu, got {device}"
    if find_spec("numba") is None:
        return "needs the package numba, which is not installed"
    return _refuse_other_dtypes(dtype)


def _refuse_cupy(device: str, dtype: torch.dtype) -> str | None:
    if device != "cuda":
        return f"runs on cuda, got {device}"
    from voxpool.kernels._cuda import refusal

    return refusal() or _refuse_other_dtypes(dtype)


def _refuse_torch(device: str, dtype: torch.dtype) -> str | None:
    return _refuse_other_dtypes(dtype)


def _refuse_ndimage(device: str, dtype: torch.dtype) -> str | None:
    if device != "cpu":
        return f"runs on cpu, got {device}"
    return _refuse_other_dtypes(dtype)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("numba", "voxpool.kernels.pool_numba", _refuse_numba),
        Backend("cupy", "voxpool.kernels.pool_cupy", _refuse_cupy),
        Backend("torch", "voxpool.kernels.pool_torch", _refuse_torch),
        Backend("ndimage", "voxpool.kernels.pool_ndimage", _refuse_ndimage),
    )
}
"""Every backend by name, the preferred one first."""


def select(device: torch.device | str, dtype: torch.dtype, requested: str | None = None) -> Backend:
    """Choose the backend for tensors of one device and dtype.

    Args:
        device: Where the tensors live.
        dtype: Their dtype.
        requested: Name of the only backend to consider; None tries all in order of preference.

    Returns:
        The first backend that refuses nothing.

    Raises:
        UsageError: If the name is unknown or every candidate refuses; the message lists each refusal.
    """
    if requested is not None and requested not in BACKENDS:
        raise UsageError(f"backend must be one of {', '.join(BACKENDS)} or None, got {requested!r}")
    device_type = torch.device(device).type
    refusals = []
    for backend in BACKENDS.values():
        if requested not in (None, backend.name):
            continue
        reason = backend.refusal(device_type, dtype)
        if reason is None:
            return backend
        refusals.append(f"{backend.name} {reason}")
    raise UsageError(f"no pooling backend fits: {'; '.join(refusals)}")
