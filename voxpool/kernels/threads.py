"""Parallel work of the CPU kernels: Python threads around compiled code that releases the GIL.

Unlike numba's own pools they survive a fork and may be entered from several threads at once. The threads are started
once and kept: starting some for every call would take longer than pooling a small map does.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import count

SERIAL_SIZE = 1 << 17
"""Below this many elements waking threads costs more than they save."""


@cache
def _helpers() -> ThreadPoolExecutor:
    """The threads of this process, started as they are needed."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="voxpool")


if hasattr(os, "register_at_fork"):
    # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def number() -> int:
    """How many threads work: as many as torch uses, where it is loaded; else one for every processor."""
    torch = sys.modules.get("torch")
    return (os.cpu_count() or 1) if torch is None else int(torch.get_num_threads())


def run(tasks: Sequence[Callable[[], None]], size: int) -> None:
    """Do independent tasks on as many threads as torch uses, the caller's own among them.

    Args:
        tasks: What to do; the order does not matter to the results.
        size: Elements that they handle together: few are done without other threads.

    Raises:
        Exception: What a task raised, the first that is found.
    """
    threads = min(len(tasks), number())
    if threads <= 1 or size < SERIAL_SIZE:
        for task in tasks:
            task()
        return
    turns = count()  # taking the next number is one step that no other thread can come between

    def work() -> None:
        while (turn := next(turns)) < len(tasks):
            tasks[turn]()

    helpers = [_helpers().submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        _finish(helpers)
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def _finish(helpers: Sequence[Future[None]]) -> None:
    """Wait for those that began; whatever waits behind another caller's work has nothing left to do."""
    for helper in helpers:
        if not helper.cancel():
            helper.exception()
