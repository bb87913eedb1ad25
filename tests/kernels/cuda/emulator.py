"""Compile a CUDA source with g++ and `cuda_on_cpu.h`, and launch its kernels as `cupy.RawModule` does."""

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-shared", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=off", f"-I{HERE}"]


def build(source: str, names: Sequence[str], folder: Path, *, sanitize: str = "", optimise: str = "-O1") -> Path:
    """Compile the kernels called `names`, template arguments and all, into a library in a folder."""
    text = f'#include "cuda_on_cpu.h"\n#line 1 "kernels.cu"\n{source}\n#line 1 "exports"\n'
    for number, name in enumerate(names):
        text += (
            f'extern "C" const char* launch_{number}(const unsigned* g, const unsigned* b, size_t s, void** a,'
            f" unsigned n, uint64_t seed) {{ return on_cpu::launch<{name}>(g, b, s, a, n, seed); }}\n"
        )
    library = folder / f"kernels{sanitize}.so"
    code = library.with_suffix(".cpp")
    code.write_text(text)
    extra = [f"-fsanitize={sanitize}"] if sanitize else []
    done = subprocess.run(
        ["g++", *FLAGS, optimise, *extra, code, "-o", library], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[:4000])
    return library


class Emulated:
    """The kernels of a library that `build` made.

    Attributes:
        seed: Decides the order in which blocks and threads run.
    """

    def __init__(self, library: Path, names: Sequence[str]) -> None:
        self.library, self.names, self.seed = ctypes.CDLL(str(library)), list(names), 0

    def get_function(self, name: str) -> Callable[..., None]:
        """The kernel of that name: call it with grid, block and NumPy scalars."""
        entry = getattr(self.library, f"launch_{self.names.index(name)}")
        entry.restype = ctypes.c_char_p

        def kernel(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[np.generic, ...], shared_mem: int = 0):
            if not all(isinstance(a, np.generic) for a in args):
                raise TypeError(f"{name}: kernel arguments must be NumPy scalars, whose size is known")
            values = [np.array([a]) for a in args]
            pointers = (ctypes.c_void_p * len(values))(*[v.ctypes.data for v in values])
            sizes = [(ctypes.c_uint * 3)(*(*dims, 1, 1)[:3]) for dims in (grid, block)]
            wrong = entry(*sizes, ctypes.c_size_t(shared_mem), pointers, len(values), ctypes.c_uint64(self.seed))
            if wrong:
                raise RuntimeError(f"{name}: {wrong.decode()}")

        return kernel
