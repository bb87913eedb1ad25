"""Many tasks on several processes or on a cluster: state lies on disk, not in here."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, Generic, TypeVar

from voxpool.errors import ResourceError, UsageError

SERIAL, DASK = "serial", "dask"
MOST_DEATHS = 2
"""How many worker processes a task may take down before it is given up, less one."""

_AHEAD = 2  # tasks per worker that wait at the scheduler, so that no worker waits for the driver
_SETTINGS = {
    "distributed.scheduler.allowed-failures": MOST_DEATHS,
    "distributed.scheduler.worker-saturation": 1.0,  # a task that kills its worker takes no other one with it
    "distributed.worker.daemon": False,
    # memory of tensors cannot be spilled to disk, and a paused worker would wait for ever
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[R]):
    """What became of a task.

    Attributes:
        name: The task.
        result: What it gave; None where its processes died.
        death: Why there is no result: one sentence, or None.
    """

    name: str
    result: R | None
    death: str | None = None


def check_engine(engine: str) -> None:
    """Refuse an engine that there is none of.

    Raises:
        UsageError: For an unknown name.
        ResourceError: If Dask is asked for and not installed.
    """
    if engine == SERIAL:
        return
    if engine != DASK and not engine.startswith(("tcp://", "tls://")):
        raise UsageError(f"--engine is serial, dask, or the address of a Dask scheduler (tcp://...), got {engine!r}")
    if not has_dask():
        raise ResourceError(f'--engine {engine} needs Dask; run pip install "voxpool[scale]"')


def has_dask() -> bool:
    """Whether the extra `scale` is installed."""
    return find_spec("distributed") is not None


def run_tasks(
    work: Callable[[T], R],
    tasks: Mapping[str, T],
    *,
    engine: str,
    workers: int = 1,
    memory_gb: float | None = None,
) -> Iterator[Done[R]]:
    """Do tasks, and give what each came to, in the order in which they end.

    A task may be done twice: where a process is killed, the task in flight is given to another one. So it must be
    harmless to repeat, and what it gives should be small: results belong into files.

    Args:
        work: What to do with a task; for other processes it must be importable by name, or a `partial` of such.
        tasks: By name.
        engine: "dask" for processes of this machine, or the address of a scheduler; see `check_engine`.
        workers: Number of processes, for "dask".
        memory_gb: Memory that each may take before it is ended, in 10^9 bytes, for "dask"; None for its share.

    Raises:
        ResourceError: If the scheduler cannot be reached.
    """
    import dask
    from distributed import Client, LocalCluster, as_completed

    # a worker that dies is told of as what became of its task
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(_settings()), ExitStack() as stack:
        if engine == DASK:
            limit = "auto" if memory_gb is None else int(memory_gb * 1e9)
            # nobody but this machine can reach the scheduler, which runs what it is sent
            with _deaf_to_interrupts():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=limit,
                    host="127.0.0.1",
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
        else:
            try:
                client = stack.enter_context(Client(engine, timeout="10s"))
            except (OSError, TimeoutError, ValueError) as error:
                raise ResourceError(
                    f"no Dask scheduler answers at {engine}; start one, or take --engine dask"
                ) from error
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
        waiting = iter(tasks.items())
        names: dict[str, str] = {}

        def submit(count: int) -> list[Any]:
            futures = []
            for name, task in islice(waiting, count):
                future = client.submit(work, task, key=f"voxpool-{name}", pure=False, retries=0)
                names[future.key] = name
                futures.append(future)
            return futures

        # not all at once: the driver's memory does not grow with their number
        running = as_completed(submit(max(1, workers) * _AHEAD))
        for future in running:
            yield _outcome(names.pop(future.key), future)
            future.release()  # or its result would be made again, should the process that holds it die
            for other in submit(1):
                running.add(other)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, which a terminal sends to all: the driver alone ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _outcome(name: str, future: Any) -> Done[Any]:
    from distributed import KilledWorker

    error = future.exception() if future.status == "error" else None
    if error is None:
        return Done(name, future.result())
    if isinstance(error, KilledWorker):
        return Done(
            name,
            None,
            f"{MOST_DEATHS + 1} processes were killed while they worked on it; memory was too small, or a library"
            " crashed: give fewer --workers, or see what the system's log says (E604)",
        )
    raise error


def _settings() -> dict[str, Any]:
    """Each process computes with as many threads as one alone would.

    The sums of a convolution are rounded differently with another number of threads, and the labels shall be the same
    bytes for every number of processes. Threads that wait leave the processor to those of the others.
    """
    threads = dict.fromkeys(_THREADS, os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)))
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    # memory goes back to the system early
    return _SETTINGS | {"distributed.nanny.pre-spawn-environ": threads | quiet | {"MALLOC_TRIM_THRESHOLD_": "65536"}}
