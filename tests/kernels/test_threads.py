"""The threads of the CPU kernels, and the pages of what they write."""

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from voxpool.kernels import hugepages, threads

MANY = threads.SERIAL_SIZE


def test_every_task_is_done_once() -> None:
    for number in (0, 1, 2, 3, 50):
        for size in (1, MANY):
            done: list[int] = []
            threads.run([partial(done.append, i) for i in range(number)], size)
            assert sorted(done) == list(range(number))


def test_two_threads_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    together = threading.Barrier(2, timeout=60)
    threads.run([together.wait, together.wait], MANY)  # would break if one came after the other


def test_few_elements_stay_in_the_callers_thread() -> None:
    seen: list[int] = []
    threads.run([lambda: seen.append(threading.get_ident())] * 4, MANY - 1)
    assert set(seen) == {threading.get_ident()}


@pytest.mark.parametrize("failing", range(4))
def test_what_a_task_raises_is_raised_and_later_calls_work(failing: int) -> None:
    def task(number: int) -> None:
        if number == failing:
            raise ZeroDivisionError(f"task {number}")

    with pytest.raises(ZeroDivisionError, match=f"task {failing}"):
        threads.run([lambda i=i: task(i) for i in range(4)], MANY)
    test_every_task_is_done_once()


def test_callers_that_share_the_threads_do_not_wait_for_each_other_forever() -> None:
    with ThreadPoolExecutor(8) as callers:
        for future in [callers.submit(test_every_task_is_done_once) for _ in range(40)]:
            future.result(timeout=120)


def _huge_pages(address: int) -> bool:
    """Whether the kernel was asked for huge pages behind an address, from its table of mappings."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            low, high = (int(bound, 16) for bound in words[0].split("-"))
            inside = low <= address < high
        elif inside and words[0] == "VmFlags:":
            return "hg" in words
    return False


@pytest.mark.parametrize("setting", [None, "0", "1"])
def test_a_users_setting_of_huge_pages_holds(setting: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if setting is not None:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", setting)
    # a mapping of its own: what malloc hands out may lie where huge pages were asked for earlier
    buffer = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    tensor = hugepages.advise(torch.frombuffer(buffer, dtype=torch.uint8))
    available = os.path.exists("/sys/kernel/mm/transparent_hugepage")
    assert _huge_pages(tensor.data_ptr() + (32 << 20)) == (setting is None and available)


def test_small_tensors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    buffer = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    tensor = hugepages.advise(torch.frombuffer(buffer, dtype=torch.uint8))
    assert not _huge_pages(tensor.data_ptr() + (4 << 20))
