"""The kernels under AddressSanitizer and ThreadSanitizer: clean, while planted mistakes are reported."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from voxpool.kernels import _cuda, pool_cupy

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def run_sanitized(
    emulator, file: str, source: str, sanitizer: str, folder: Path, *chosen: str, names: Sequence[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the cases in a process of their own, as a sanitizer must be there before Python is."""
    library = emulator.build(source, names or pool_cupy.kernel_names(torch.float32), folder, sanitize=sanitizer)
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
    command = ["setarch", "-R", sys.executable, HERE / "sanitized.py", file, library, *chosen]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="session")
def kernel_names(slic_cases, block_cases) -> dict[str, Sequence[str] | None]:
    return {"pool.cu": None, "slic.cu": slic_cases.NAMES, "block_pad.cu": block_cases.NAMES}


@pytest.mark.parametrize("file", ["pool.cu", "slic.cu", "block_pad.cu"])
def test_no_access_is_out_of_bounds(file: str, emulator, kernel_names, tmp_path: Path) -> None:
    names = kernel_names[file]
    done = run_sanitized(emulator, file, _cuda.source(file), "address", tmp_path, "all", names=names)
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
    done = run_sanitized(emulator, "pool.cu", mutate(right, mistake), "address", tmp_path, "small", "mistaken")
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "kernels.cu:" in done.stderr
    assert done.returncode


@pytest.mark.parametrize("file", ["pool.cu", "slic.cu", "block_pad.cu"])
def test_no_two_threads_race(file: str, emulator, kernel_names, tmp_path: Path) -> None:
    names = kernel_names[file]
    done = run_sanitized(emulator, file, _cuda.source(file), "thread", tmp_path, "small", names=names)
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
    done = run_sanitized(emulator, "pool.cu", source, "thread", tmp_path, "small", "mistaken")
    assert done.returncode
    racing = {int(line) for line in re.findall(r"SUMMARY: ThreadSanitizer: data race .*kernels\.cu:(\d+)", done.stderr)}
    for mistake in mistakes.values():
        start = source[: source.index(mistake)].count("\n") + 1
        assert racing & set(range(start, start + 4)), (mistake, racing)


def test_labels_that_are_joined_without_atomics_are_reported(emulator, slic_cases, tmp_path: Path) -> None:
    source = _cuda.source("slic.cu")
    right, mistake = "const int before = atomicMin(parents + high, low);", "const int before = parents[high] = low;"
    assert source.count(right) == 1
    source = source.replace(right, mistake)
    done = run_sanitized(emulator, "slic.cu", source, "thread", tmp_path, "small", "mistaken", names=slic_cases.NAMES)
    line = source[: source.index(mistake)].count("\n") + 1
    assert re.search(rf"SUMMARY: ThreadSanitizer: data race .*kernels\.cu:{line}", done.stderr), done.stderr[:3000]
