"""The emulator itself: what a GPU would leave undefined is an error, and the order of threads shows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent

PROBES = """
__global__ void reverse(int* out, int n) {
  DYNAMIC_SHARED(int, held);
  held[threadIdx.x] = int(blockIdx.x) * n + int(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * n + threadIdx.x] = held[n - 1 - threadIdx.x];
}
__global__ void unsynchronised(int* out, int n) {
  DYNAMIC_SHARED(int, held);
  held[threadIdx.x] = int(threadIdx.x);
  out[blockIdx.x * n + threadIdx.x] = held[n - 1 - threadIdx.x];
}
__global__ void half_waits(int* out, int n) {
  if (int(threadIdx.x) < n / 2) __syncthreads();
}
__global__ void exited_lane(int* out, int n) {
  if (threadIdx.x == 7) return;
  out[0] = __shfl_xor_sync(~0u, n, 1);
}
__global__ void last_writer(int* out, int n) { out[0] = int(threadIdx.x); }
__global__ void exchange(int* out, int n) {
  const int lane = int(threadIdx.x);
  out[lane] = __shfl_sync(~0u, lane, lane + 1) + 100 * __shfl_xor_sync(~0u, lane, 16);
  out[32 + lane] = int(__ballot_sync(~0u, lane % 3 == 0));
  out[64 + lane] = __reduce_max_sync(~0u, lane * 7 % 32) - __reduce_min_sync(~0u, lane - 5);
}
"""
NAMES = ("reverse", "unsynchronised", "half_waits", "exited_lane", "last_writer", "exchange")


@pytest.fixture(scope="module")
def probes(emulator, tmp_path_factory: pytest.TempPathFactory):
    return emulator.Emulated(emulator.build(PROBES, NAMES, tmp_path_factory.mktemp("probes")), NAMES)


def launch(probes, name: str, *, grid: tuple[int, ...] = (1,), threads: int = 32, shared_mem: int = 0) -> np.ndarray:
    out = np.full(grid[0] * max(threads, 96), -1, np.int32)
    args = (np.uintp(out.ctypes.data), np.int32(threads))
    probes.get_function(name)(grid, (threads,), args, shared_mem=shared_mem)
    return out


def test_threads_of_a_block_exchange_values(probes) -> None:
    out = launch(probes, "reverse", grid=(3,), threads=128, shared_mem=512)
    assert np.array_equal(out.reshape(3, 128), np.arange(384).reshape(3, 128)[:, ::-1])


def test_lanes_of_a_warp_exchange_values(probes) -> None:
    lane = np.arange(32)
    out = launch(probes, "exchange").reshape(3, 32)
    assert np.array_equal(out[0], (lane + 1) % 32 + 100 * (lane ^ 16))
    assert (out[1].view(np.uint32) == sum(1 << i for i in range(0, 32, 3))).all()
    assert (out[2] == 31 + 5).all()


def test_without_a_barrier_others_read_poison(probes) -> None:
    assert (launch(probes, "unsynchronised", threads=128, shared_mem=512) == -1).any()


def test_the_seed_decides_the_order_of_threads(probes) -> None:
    last = []
    for seed in (0, 1, 2, 3, 0):
        probes.seed = seed
        last.append(launch(probes, "last_writer")[0])
    assert last[0] == last[4]
    assert len(set(last)) > 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("half_waits", {}, "deadlock in block 0: 16 of 32 threads wait in __syncthreads"),
        ("exited_lane", {}, "the mask names a lane that has exited"),
        ("reverse", {"threads": 2048}, "the block is out of limits"),
        ("reverse", {"grid": (1, 65536)}, "the grid is out of limits"),
        ("reverse", {"grid": (0,)}, "the grid is out of limits"),
        ("reverse", {"shared_mem": 1 << 16}, "more shared memory than every GPU has"),
    ],
)
def test_what_a_gpu_leaves_undefined_is_an_error(name: str, options: dict, message: str, probes) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch(probes, name, **options)


def test_arguments_must_have_a_size_and_a_place(probes) -> None:
    with pytest.raises(TypeError, match="must be NumPy scalars"):
        probes.get_function("reverse")((1,), (32,), (0, np.int32(32)))
    with pytest.raises(RuntimeError, match="the number of arguments is wrong"):
        probes.get_function("reverse")((1,), (32,), (np.uintp(0),))


@pytest.mark.parametrize(("name", "races"), [("reverse", False), ("unsynchronised", True)])
def test_a_missing_barrier_is_a_race(name: str, races: bool, emulator, tmp_path: Path) -> None:
    library = emulator.build(PROBES, NAMES, tmp_path, sanitize="thread")
    script = f"""
import sys
import numpy as np
sys.path.insert(0, {str(HERE)!r})
import emulator
out = np.zeros(64, np.int32)
kernel = emulator.Emulated({str(library)!r}, {NAMES!r}).get_function({name!r})
kernel((2,), (32,), (np.uintp(out.ctypes.data), np.int32(32)), shared_mem=128)
"""
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, encoding="utf-8", check=True)
    environment = os.environ | {
        "LD_PRELOAD": runtime.stdout.strip(),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = ["setarch", "-R", sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=500)
    assert ("ThreadSanitizer: data race" in done.stderr) is races, done.stderr
    assert bool(done.returncode) is races
