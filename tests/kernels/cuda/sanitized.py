"""Run cases with kernels built with a sanitizer: `sanitized.py SOURCE LIBRARY all|small [mistaken]`."""

import contextlib
import sys
from pathlib import Path

import block_cases
import cases
import emulator
import slic_cases
import torch

from voxpool.kernels import _cuda, block_pad_cupy, pool_cupy, pool_plan, slic_cupy


def pool(library: Path, chosen: str, *, mistaken: bool) -> None:
    """Run every kernel of `pool.cu` in float32 on the cases; the sanitizer speaks up where something is wrong."""
    if chosen == "small":
        # few threads, each of which costs a sanitizer much, and still every kernel
        pool_cupy._THREADS, pool_cupy._WARPS, pool_plan.FAN_IN = 64, 2, 2
    kernels = emulator.Emulated(library, pool_cupy.kernel_names(torch.float32))
    _cuda.module = lambda name, names, device: kernels
    for case in (cases.CASES if chosen == "all" else cases.SMALL).values():
        for channels_last in (False, True):
            # of planted mistakes the sanitizer is to find all
            with contextlib.suppress(*[AssertionError] * mistaken):
                cases.run(pool_cupy, case, torch.float32, channels_last=channels_last, planned=True)


def slic(library: Path, chosen: str, *, mistaken: bool) -> None:
    """Run every kernel of `slic.cu` on the cases."""
    if chosen == "small":
        slic_cupy._THREADS, slic_cupy._MOST_ASSIGNING = 64, 64
    kernels = emulator.Emulated(library, slic_cases.NAMES)
    _cuda.module = lambda name, names, device: kernels
    for case in (slic_cases.CASES if chosen == "all" else slic_cases.SMALL).values():
        with contextlib.suppress(*[AssertionError] * mistaken):
            slic_cases.check(slic_cupy, case)


def blocks(library: Path, chosen: str, *, mistaken: bool) -> None:
    """Run every kernel of `block_pad.cu` in float32 on the cases."""
    if chosen == "small":
        block_pad_cupy._THREADS = 64
    kernels = emulator.Emulated(library, block_cases.NAMES)
    _cuda.module = lambda name, names, device: kernels
    for case in (block_cases.CASES if chosen == "all" else block_cases.SMALL).values():
        with contextlib.suppress(*[AssertionError] * mistaken):
            block_cases.check(block_pad_cupy, case, torch.float32)


torch.set_num_threads(1)
{"pool.cu": pool, "slic.cu": slic, "block_pad.cu": blocks}[sys.argv[1]](
    Path(sys.argv[2]), sys.argv[3], mistaken="mistaken" in sys.argv
)
sys.stdout.write("all cases ran\n")
