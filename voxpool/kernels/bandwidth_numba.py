"""What no pooling on the CPU can beat: the time to read a map once, and to write a fresh one.

numba's own threads are used here, not those of `voxpool.kernels.threads`: they are running already, and a limit
must not pay for starting threads.
"""

from typing import Any

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads
from torch import Tensor

from voxpool.kernels.hugepages import advise


def use_threads_of_torch() -> None:
    """Let numba's parallel loops take as many threads as torch does, where it has as many."""
    # numba fills its settings at run time
    launched = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    set_num_threads(min(torch.get_num_threads(), launched))


@njit(cache=True, parallel=True, fastmath=True, error_model="numpy")
def _add_up(numbers: Any) -> Any:
    """Sum of numbers (n,); `fastmath` lets it become wide vectors in several independent sums."""
    total = np.float32(0)
    for i in prange(len(numbers)):
        total += numbers[i]
    return total


def read(x: Tensor) -> float:
    """Read a map once with all threads of torch and do next to nothing with it.

    Determinism: none in the last bits; the order of additions is the compiler's affair.

    Args:
        x: A dense CPU tensor of any dtype, shape and layout, whose bytes are a multiple of 4.

    Returns:
        The sum of its bytes taken as float32: the proof that all of them were read.
    """
    use_threads_of_torch()
    flat = x.detach().as_strided((x.numel(),), (1,)).view(torch.float32)
    return float(_add_up(flat.numpy()))


def read_and_write(x: Tensor) -> Tensor:
    """Read a map once and write a fresh one like it: what a forward and a backward pass cannot do without.

    Args:
        x: As for `read`.

    Returns:
        Zeros of the shape, dtype and layout of `x`, in memory advised as that of the pooling's gradients.
    """
    read(x)
    return advise(torch.empty_like(x)).fill_(0)
