"""The CUDA kernels on the CPU: compiled with g++, run by `cuda_on_cpu.h`, launched by the code that serves GPUs."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from voxpool.kernels import _cuda, pool_cupy, registry

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def _load(name: str) -> ModuleType:
    """Import a module that stands beside this file."""
    full = f"voxpool_cuda_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _load("cases").CASES.values(), ids=_load("cases").CASES)
    if "slic_case" in metafunc.fixturenames:
        metafunc.parametrize("slic_case", _load("slic_cases").CASES.values(), ids=_load("slic_cases").CASES)
    if "block_case" in metafunc.fixturenames:
        metafunc.parametrize("block_case", _load("block_cases").CASES.values(), ids=_load("block_cases").CASES)


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    return _load("cases")


@pytest.fixture(scope="session")
def slic_cases() -> ModuleType:
    return _load("slic_cases")


@pytest.fixture(scope="session")
def block_cases() -> ModuleType:
    return _load("block_cases")


@pytest.fixture(scope="session")
def emulator() -> ModuleType:
    return _load("emulator")


@pytest.fixture(scope="session")
def emulated(emulator: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """Every kernel of `pool.cu`, compiled for this processor."""
    names = [name for dtype in registry.FLOAT_DTYPES for name in pool_cupy.kernel_names(dtype)]
    library = emulator.build(_cuda.source("pool.cu"), names, tmp_path_factory.mktemp("pool"))
    return emulator.Emulated(library, names)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill memory that nobody initialised with NaN and the largest integers."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def kernels(emulated, poisoned: None, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend, with the emulator in place of the loader of binaries; nothing else differs from a GPU."""
    emulated.seed = 0
    monkeypatch.setattr(_cuda, "module", lambda name, names, device: emulated)
    return pool_cupy


@pytest.fixture
def backend(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a backend in the registry that takes CPU tensors to the emulated kernels."""
    entry = registry.Backend("cupy", "voxpool.kernels.pool_cupy", lambda device, dtype: None)
    monkeypatch.setitem(registry.BACKENDS, "cupy", entry)
    return "cupy"


@pytest.fixture
def mutate() -> Callable[[str, str], str]:
    """Return `pool.cu` with a mistake put into it."""

    def change(right: str, mistake: str) -> str:
        text = _cuda.source("pool.cu")
        assert text.count(right) == 1
        return text.replace(right, mistake)

    return change


@pytest.fixture(scope="session")
def kernel_names(slic_cases, block_cases) -> dict[str, Sequence[str] | None]:
    return {"pool.cu": None, "slic.cu": slic_cases.NAMES, "block_pad.cu": block_cases.NAMES}


@pytest.fixture(scope="session")
def run_sanitized(emulator: ModuleType) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(
        file: str, source: str, sanitizer: str, folder: Path, *chosen: str, names: Sequence[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the cases in a process of their own, as a sanitizer must be there before Python is."""
        library = emulator.build(source, names or pool_cupy.kernel_names(torch.float32), folder, sanitize=sanitizer)
        name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
        runtime = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, encoding="utf-8", check=True)
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
        return subprocess.run(
            command, env=os.environ | settings, capture_output=True, encoding="utf-8", check=False, timeout=500
        )

    return run
