"""Run cases with kernels built with a sanitizer: `sanitized.py LIBRARY all|small [mistaken]`."""

import contextlib
import sys
from pathlib import Path

import cases
import emulator
import torch

from voxpool.kernels import _cuda, pool_cupy, pool_plan


def main(library: Path, chosen: str, *, mistaken: bool) -> None:
    """Run every kernel in float32 on the cases; the sanitizer speaks up where something is wrong."""
    torch.set_num_threads(1)
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
    sys.stdout.write("all cases ran\n")


main(Path(sys.argv[1]), sys.argv[2], mistaken="mistaken" in sys.argv)
