"""NVRTC compiles every kernel for every architecture without a GPU; the cache of binaries; what the backend refuses."""

import importlib.machinery
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from voxpool.errors import ResourceError
from voxpool.kernels import _cuda, block_pad_cupy, pool_cupy, slic_cupy
from voxpool.kernels.registry import FLOAT_DTYPES

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ALL = {
    "pool.cu": tuple(name for dtype in FLOAT_DTYPES for name in pool_cupy.kernel_names(dtype)),
    "block_pad.cu": tuple(name for dtype in FLOAT_DTYPES for name in block_pad_cupy.kernel_names(dtype)),
    "slic.cu": tuple(dict.fromkeys(name for channels in (1, 2, 4) for name in slic_cupy.kernel_names(channels))),
}
SMALL = "template <class T> __global__ void twice(T* x) { x[threadIdx.x] *= 2; }"


def resources(log: str) -> dict[str, tuple[int, int, int]]:
    """Registers, stack bytes and spilled bytes of each symbol, from ptxas's log."""
    entries = re.split(r"Compiling entry function '", log)[1:]
    found = {}
    for entry in entries:
        stack, *spilled = map(
            int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", entry).groups()
        )
        registers = int(re.search(r"Used (\d+) registers", entry)[1])
        found[entry.split("'")[0]] = (registers, stack, sum(spilled))
    return found


@pytest.mark.parametrize("file", ALL)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_and_keeps_to_registers(arch: str, file: str) -> None:
    binary = _cuda.compile_source(_cuda.source(file), ALL[file], arch)
    assert set(binary.symbols) == set(ALL[file])
    used = resources(binary.log)
    assert set(used) == set(binary.symbols.values())
    for name, symbol in binary.symbols.items():
        registers, stack, spilled = used[symbol]
        assert (stack, spilled) == (0, 0), name
        # four blocks of 256 threads fit on a multiprocessor of 65,536 registers
        assert registers <= 64, name


def test_the_binary_is_whole_and_holds_the_symbols() -> None:
    binary = _cuda.compile_source(SMALL, ("twice<float>", "twice<int>"), "sm_80")
    assert binary.cubin.startswith(b"\x7fELF")
    # the section headers are at the end of the file, and their table says where
    offset = int.from_bytes(binary.cubin[40:48], "little")
    entry, count = (int.from_bytes(binary.cubin[at : at + 2], "little") for at in (58, 60))
    assert offset + entry * count <= len(binary.cubin)
    for symbol in binary.symbols.values():
        assert symbol.encode() in binary.cubin


def test_a_source_that_does_not_compile_is_told_with_what_the_compiler_said() -> None:
    with pytest.raises(ResourceError, match=r"(?s)^NVRTC 13\.\d+ does not compile the kernels for sm_80: .*nonsense"):
        _cuda.compile_source("nonsense;", (), "sm_80")


def test_a_binary_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "cache"
    monkeypatch.setenv("VOXPOOL_CACHE", str(folder))
    cubin, symbols = _cuda.compiled(SMALL, ("twice<float>",), "sm_80")
    assert cubin.parent == folder
    assert cubin.read_bytes() == _cuda.compile_source(SMALL, ("twice<float>",), "sm_80").cubin
    cubin.write_bytes(b"kept")
    assert _cuda.compiled(SMALL, ("twice<float>",), "sm_80") == (cubin, symbols)
    assert cubin.read_bytes() == b"kept"
    assert sorted(p.suffix for p in folder.iterdir()) == [".cubin", ".json"]
    assert json.loads(cubin.with_suffix(".json").read_text(encoding="utf-8")) == symbols


def test_every_change_makes_another_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPOOL_CACHE", str(tmp_path))
    paths = {
        _cuda.compiled(SMALL, ("twice<float>",), "sm_80")[0],
        _cuda.compiled(SMALL + "\n", ("twice<float>",), "sm_80")[0],
        _cuda.compiled(SMALL, ("twice<int>",), "sm_80")[0],
        _cuda.compiled(SMALL, ("twice<float>",), "sm_90")[0],
    }
    monkeypatch.setattr(_cuda, "OPTIONS", (*_cuda.OPTIONS, "-DANY"))
    paths.add(_cuda.compiled(SMALL, ("twice<float>",), "sm_80")[0])
    assert len(paths) == 5


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VOXPOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"cannot keep compiled kernels in .*file: .*; set VOXPOOL_CACHE"):
        _cuda.compiled(SMALL, ("twice<float>",), "sm_80")


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOXPOOL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert _cuda.cache_folder() == Path("/somewhere/voxpool")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert _cuda.cache_folder() == Path("/home/somebody/.cache/voxpool")


def test_the_backend_refuses_a_torch_without_cuda() -> None:
    assert torch.version.cuda is None
    assert _cuda.refusal() == (
        f"needs a PyTorch with CUDA, found {torch.__version__}; install one as https://pytorch.org says"
    )


def test_the_backend_takes_a_cupy_of_torchs_cuda() -> None:
    assert _cuda._refusal.__wrapped__("13.0", "2.13.0") is None


def test_the_backend_refuses_a_cupy_of_another_cuda() -> None:
    assert _cuda._refusal.__wrapped__("12.8", "2.13.0") == (
        "needs CuPy for CUDA 12 as PyTorch has it, found CuPy for CUDA 13; run: pip install 'voxpool[cuda12]'"
    )


def test_the_backend_refuses_to_be_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    # CuPy is installed; hide it from the finder
    find = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(
        importlib.machinery.PathFinder, "find_spec", lambda name, *rest: None if name == "cupy" else find(name, *rest)
    )
    for name in [n for n in sys.modules if n.split(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    assert _cuda._refusal.__wrapped__("13.0", "2.13.0") == (
        "needs CuPy for CUDA 13, which is not installed; run: pip install 'voxpool[cuda13]'"
    )


def test_a_cupy_that_cannot_be_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libnvrtc.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    reason = _cuda._refusal.__wrapped__("13.0", "2.13.0")
    assert reason.startswith("cannot use the CuPy that is installed (ImportError: libnvrtc")
    assert reason.endswith("; run: pip install 'voxpool[cuda13]'")
