"""The kernels under AddressSanitizer: clean, while planted mistakes are reported."""

from pathlib import Path

import pytest

from voxpool.kernels import _cuda


@pytest.mark.parametrize("file", ["pool.cu", "slic.cu", "block_pad.cu"])
def test_no_access_is_out_of_bounds(file: str, run_sanitized, kernel_names, tmp_path: Path) -> None:
    names = kernel_names[file]
    done = run_sanitized(file, _cuda.source(file), "address", tmp_path, "all", names=names)
    assert done.stdout == "all cases ran\n", done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("voxel[j] = p < size ?", "voxel[j] = p < 256 ?"),
        ("if (i >= packs) return;", ""),
    ],
)
def test_an_access_out_of_bounds_is_reported(right: str, mistake: str, mutate, run_sanitized, tmp_path: Path) -> None:
    done = run_sanitized("pool.cu", mutate(right, mistake), "address", tmp_path, "small", "mistaken")
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "kernels.cu:" in done.stderr
    assert done.returncode
