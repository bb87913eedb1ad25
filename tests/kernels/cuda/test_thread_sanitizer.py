"""The kernels under ThreadSanitizer: clean, while planted mistakes are reported."""

import re
from pathlib import Path

import pytest

from voxpool.kernels import _cuda


@pytest.mark.parametrize("file", ["pool.cu", "slic.cu", "block_pad.cu"])
def test_no_two_threads_race(file: str, run_sanitized, kernel_names, tmp_path: Path) -> None:
    names = kernel_names[file]
    done = run_sanitized(file, _cuda.source(file), "thread", tmp_path, "small", names=names)
    assert done.stdout == "all cases ran\n", done.stderr
    assert done.returncode == 0


def test_threads_that_write_one_value_are_reported(mutate, run_sanitized, tmp_path: Path) -> None:
    mistakes = {
        "if (lane == 0) {": "if (lane < 2) {",
        "if (slot == 0 && c < C) {": "if (c < C) {",
        "joined[i] = r.value;": "joined[i / 2] = r.value;",
    }
    source = _cuda.source("pool.cu")
    for right, mistake in mistakes.items():
        mutate(right, mistake)
        source = source.replace(right, mistake)
    done = run_sanitized("pool.cu", source, "thread", tmp_path, "small", "mistaken")
    assert done.returncode
    racing = {int(line) for line in re.findall(r"SUMMARY: ThreadSanitizer: data race .*kernels\.cu:(\d+)", done.stderr)}
    for mistake in mistakes.values():
        start = source[: source.index(mistake)].count("\n") + 1
        assert racing & set(range(start, start + 4)), (mistake, racing)
