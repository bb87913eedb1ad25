"""Tasks for `run_tasks` that processes find by name."""

import os
import signal
import time
from pathlib import Path


def note(task: tuple[str, str]) -> str:
    """Write down that a task ran; the one named "poison" kills its process each time."""
    folder, name = task
    with (Path(folder) / "ran.txt").open("a") as file:
        file.write(f"{name}\n")
    if name == "poison":
        time.sleep(0.5)  # what this process gave before is fetched by then
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def hoard(task: int) -> int:
    """Hold so many megabytes."""
    block = bytearray(task * 10**6)
    for start in range(0, len(block), 4096):
        block[start] = 1
    end = time.monotonic() + 3
    while time.monotonic() < end:  # the memory is looked at now and then
        pass
    return len(block)
