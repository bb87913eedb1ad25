"""The kernels under AddressSanitizer and ThreadSanitizer: clean, while planted mistakes are reported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from voxpool.kernels import _cuda, pool_cupy

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def run_sanitized(
    emulator, source: str, sanitizer: str, folder: Path, *chosen: str
) -> subprocess.CompletedProcess[str]:
    """Run the cases in a process of their own, as a sanitizer must be there before Python is."""
    names = pool_cupy.kernel_names(torch.float32)
    library = emulator.build(source, names, folder, sanitize=sanitizer)
    name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    runtime = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    # the scheduler's own bookkeeping is between fibers, and no affair of the kernels
    hidden = folder / "hidden"
    hidden.write_text("race_top:on_cpu::\nrace_top:std::vector\nrace_top:std::swap\n", encoding="utf-8")
    settings = {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": f"suppressions={hidden}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # neither sanitizer likes the randomised addresses of new kernels
    command = ["setarch", "-R", sys.executable, HERE / "sanitized.py", library, *chosen]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=120)


def test_no_access_is_out_of_bounds(emulator, tmp_path: Path) -> None:
    done = run_sanitized(emulator, _cuda.source("pool.cu"), "address", tmp_path, "all")
    assert done.stdout == "all cases ran\n", done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("voxel[j] = p < size ?", "voxel[j] = p < 256 ?"),
        ("if (i >= packs) return;", ""),
    ],
)
def test_an_access_out_of_bounds_is_reported(right: str, mistake: str, mutate, emulator, tmp_path: Path) -> None:
    done = run_sanitized(emulator, mutate(right, mistake), "address", tmp_path, "small", "mistaken")
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "kernels.cu:" in done.stderr
    assert done.returncode


def test_no_two_threads_race(emulator, tmp_path: Path) -> None:
    done = run_sanitized(emulator, _cuda.source("pool.cu"), "thread", tmp_path, "small")
    assert done.stdout == "all cases ran\n", done.stderr
    assert done.returncode == 0


def test_threads_that_write_one_value_are_reported(mutate, emulator, tmp_path: Path) -> None:
    mistakes = {
        "if (lane == 0) {": "if (lane < 2) {",
        "if (slot == 0 && c < C) {": "if (c < C) {",
        "joined[i] = r.value;": "joined[i / 2] = r.value;",
    }
    source = _cuda.source("pool.cu")
    for right, mistake in mistakes.items():
        mutate(right, mistake)
        source = source.replace(right, mistake)
    done = run_sanitized(emulator, source, "thread", tmp_path, "small", "mistaken")
    assert done.returncode
    racing = {int(line) for line in re.findall(r"SUMMARY: ThreadSanitizer: data race .*kernels\.cu:(\d+)", done.stderr)}
    for mistake in mistakes.values():
        start = source[: source.index(mistake)].count("\n") + 1
        assert racing & set(range(start, start + 4)), (mistake, racing)
