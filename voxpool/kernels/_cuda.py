"""From a CUDA source to kernels on a device: NVRTC, a cache of binaries on disk, and CuPy to load and launch them.

All memory is torch's: kernels take addresses, and run on the stream that torch uses at the time. CuPy is imported when
something is compiled or asked for, never before.
"""

import functools
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from voxpool.errors import ResourceError

OPTIONS = ("-std=c++17", "-default-device", "-lineinfo", "-Xptxas=-v")

_lock = threading.Lock()


class Module(Protocol):
    """Loaded kernels."""

    def get_function(self, name: str) -> Callable[..., None]:
        """Return the kernel of that name, called with grid, block and arguments: NumPy scalars all."""


@dataclass(frozen=True)
class Binary:
    """What NVRTC made of a source.

    Attributes:
        cubin: Machine code of one architecture.
        symbols: The symbol in it of each kernel asked for.
        log: What the compiler said; per symbol its registers and spilled bytes.
    """

    cubin: bytes
    symbols: dict[str, str]
    log: str


def source(name: str) -> str:
    """Return the text of a file in `voxpool/kernels/cuda`, with those that it includes in their places."""
    text = resources.files("voxpool.kernels.cuda").joinpath(name).read_text(encoding="utf-8")
    return re.sub(r'^#include "(.+)"$', lambda found: source(found[1]), text, flags=re.MULTILINE)


def compile_source(text: str, names: tuple[str, ...], arch: str) -> Binary:
    """Compile kernels with NVRTC, which needs no device.

    Args:
        text: CUDA C++.
        names: The kernels wanted, with their template arguments, as `"unpool<float, 4>"`.
        arch: The architecture, as `"sm_90"`.

    Raises:
        ResourceError: If NVRTC does not compile it.
    """
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, "kernels.cu", (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(program, (*OPTIONS, f"-arch={arch}"))
        except nvrtc.NVRTCError as error:
            said = nvrtc.getProgramLog(program).strip() or str(error)
            raise ResourceError(f"NVRTC {_nvrtc_version()} does not compile the kernels for {arch}: {said}") from error
        symbols = {name: nvrtc.getLoweredName(program, name) for name in names}
        # CuPy takes the last byte for the end of a string and leaves it out; readers of cubin files miss it
        cubin = nvrtc.getCUBIN(program) + b"\0"
        return Binary(cubin, symbols, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _nvrtc_version() -> str:
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def cache_folder() -> Path:
    """Where binaries are kept: `VOXPOOL_CACHE`, or `voxpool` in the user's cache folder."""
    chosen = os.environ.get("VOXPOOL_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "voxpool"


def _write(path: Path, content: bytes) -> None:
    """Write a file that is never there half: another process may read it at any time."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def compiled(text: str, names: tuple[str, ...], arch: str) -> tuple[Path, dict[str, str]]:
    """Compile kernels, or find them compiled in the cache.

    Returns:
        The path of the binary, and the symbol in it of each kernel.

    Raises:
        ResourceError: If NVRTC does not compile them or the cache cannot be written.
    """
    key = json.dumps([text, names, arch, _nvrtc_version(), OPTIONS])
    folder = cache_folder()
    cubin = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin"
    symbols = cubin.with_suffix(".json")
    if not cubin.exists():
        binary = compile_source(text, names, arch)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # the names first: whoever finds the binary finds them too
            _write(symbols, json.dumps(binary.symbols).encode())
            _write(cubin, binary.cubin)
        except OSError as error:
            raise ResourceError(
                f"cannot keep compiled kernels in {folder}: {error.strerror}; set VOXPOOL_CACHE to a folder of yours"
            ) from error
    return cubin, json.loads(symbols.read_bytes())


class _Loaded:
    """Kernels of a binary on one device."""

    def __init__(self, cubin: Path, symbols: dict[str, str], device: int) -> None:
        import cupy

        self._cupy, self._device, self._symbols = cupy, device, symbols
        self._module = cupy.RawModule(path=str(cubin))
        self._functions: dict[str, Any] = {}

    def get_function(self, name: str) -> Callable[..., None]:
        return functools.partial(self._launch, name)

    def _launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[np.generic, ...],
        shared_mem: int = 0,
    ) -> None:
        cuda, stream = self._cupy.cuda, torch.cuda.current_stream(self._device)
        with cuda.Device(self._device), cuda.Stream.from_external(stream):
            if name not in self._functions:
                self._functions[name] = self._module.get_function(self._symbols[name])
            self._functions[name](grid, block, args, shared_mem=shared_mem)


@functools.cache
def _load(name: str, names: tuple[str, ...], device: int) -> Module:
    major, minor = torch.cuda.get_device_capability(device)
    return _Loaded(*compiled(source(name), names, f"sm_{major}{minor}"), device)


def module(name: str, names: tuple[str, ...], device: torch.device) -> Module:
    """Return kernels of a source on a device; compiles them the first time, which takes seconds.

    Args:
        name: A file in `voxpool/kernels/cuda`.
        names: The kernels wanted, as for `compile_source`.
        device: A CUDA device.

    Raises:
        ResourceError: As `compiled`.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:
        return _load(name, names, index)


def address(tensor: torch.Tensor | None) -> np.uintp:
    """Where a tensor's elements lie, as an argument of a kernel; 0 where there is none."""
    return np.uintp(0 if tensor is None else tensor.data_ptr())


def blocks(work: int, per_block: int) -> int:
    """How many blocks it takes."""
    return -(-work // per_block)


def refusal() -> str | None:
    """Why CUDA kernels cannot run here, in words that follow the name of a backend; None where they can."""
    return _refusal(torch.version.cuda, torch.__version__)


@functools.cache
def _refusal(cuda: str | None, found: str) -> str | None:
    if cuda is None:
        return f"needs a PyTorch with CUDA, found {found}; install one as https://pytorch.org says"
    major = cuda.split(".")[0]
    remedy = f"run: pip install 'voxpool[cuda{major}]'"
    if find_spec("cupy") is None:
        return f"needs CuPy for CUDA {major}, which is not installed; {remedy}"
    try:
        from cupy.cuda import nvrtc, runtime

        other = runtime.runtimeGetVersion() // 1000
        nvrtc.getVersion()
    except Exception as error:  # whatever CuPy's libraries fail with, the reader needs it and not a traceback
        first = re.split(r"[\n.]", str(error).strip(), maxsplit=1)[0]
        return f"cannot use the CuPy that is installed ({type(error).__name__}: {first}); {remedy}"
    if str(other) != major:
        return f"needs CuPy for CUDA {major} as PyTorch has it, found CuPy for CUDA {other}; {remedy}"
    return None
