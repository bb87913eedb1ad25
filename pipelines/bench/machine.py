"""What a time depends on: processor, threads, versions, memory pages, GPU."""

import os
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

_PACKAGES = ("voxpool", "torch", "numba", "numpy", "scipy", "torch_scatter")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe this machine and process, without names of user, host or folders.

    Args:
        device: Where the benchmark computes.

    Returns:
        Plain values for JSON; None where the system does not say.
    """
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(psutil.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "huge_pages": _huge_pages(),
        "torch_huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def watch_other_work() -> Callable[[], float]:
    """Start to watch how much of the processor's time other processes take.

    Returns:
        A function that tells their share of all cores' time since then, 0 to 1, time stolen by a host included.
    """
    start, busy, own = time.perf_counter(), _busy(), time.process_time()

    def share() -> float:
        others = _busy() - busy - (time.process_time() - own)
        whole = (time.perf_counter() - start) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, others / whole))

    return share


def _busy() -> float:
    """Seconds that all cores together have worked since the system started."""
    times = psutil.cpu_times()._asdict()
    # guest time is counted within user time
    return sum(value for name, value in times.items() if name not in ("idle", "iowait", "guest", "guest_nice"))


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", lines, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _huge_pages() -> str | None:
    """The setting of transparent huge pages: always, madvise or never."""
    try:
        found = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text(encoding="ascii"))
    except OSError:
        return None
    return found[1] if found else None
