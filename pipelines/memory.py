"""How much memory a piece of work took at its peak."""

from contextlib import suppress
from pathlib import Path

import psutil
import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Begin to measure anew, where the system allows it: on Linux."""
    with suppress(OSError):  # elsewhere the peak is that of the process since its start
        _RESET.write_text("5", encoding="utf-8")  # forgets the largest resident size so far
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_gigabytes() -> dict[str, float]:
    """The largest resident size since the last reset in 10^9 bytes, as "cpu", and "gpu" where one was used."""
    peak = {"cpu": round(_resident() / 1e9, 3)}
    if torch.cuda.is_initialized():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return peak


def _resident() -> int:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))  # Windows knows the peak, others what is there now
