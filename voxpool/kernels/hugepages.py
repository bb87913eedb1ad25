"""Huge pages for large results: a fresh buffer costs one page fault per 2 MiB instead of one per 4 KiB."""

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import cache

from torch import Tensor

_HUGE_PAGE = 2 << 20
_SMALLEST = 8 * _HUGE_PAGE
_TORCH_SETTING = "THP_MEM_ALLOC_ENABLE"


def advise(tensor: Tensor) -> Tensor:
    """Ask the system for huge pages behind an uninitialised CPU tensor, before it is written to.

    Linux only, for buffers of 16 MiB and more; where the user set torch's own variable THP_MEM_ALLOC_ENABLE, that
    setting holds and nothing is asked.

    Args:
        tensor: A tensor just allocated.

    Returns:
        The same tensor; what it holds is not changed.
    """
    size = tensor.numel() * tensor.itemsize
    madvise = _madvise()
    if size >= _SMALLEST and _TORCH_SETTING not in os.environ and madvise is not None:
        start = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (tensor.data_ptr() + size - start) // _HUGE_PAGE * _HUGE_PAGE
        # a refusal leaves small pages, which work too
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return tensor


@cache
def _madvise() -> Callable[..., int] | None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "madvise", None)
