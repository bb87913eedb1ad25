"""Many tasks on several processes or on a cluster: state lies on disk, not in here."""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count, islice
from typing import Any, Generic, TypeVar

from voxpool.errors import ResourceError, UsageError

AUTO, SERIAL, DASK = "auto", "serial", "dask"
SERIAL_TASKS = 4
"""Up to so many tasks "auto" takes this process alone: others would have to load the model first."""

PROGRAMS = (
    "voxpool_pipelines.segment_scan",
    "voxpool.kernels.pool_numba",
    "voxpool.kernels.slic_numba",
    "torch._dynamo",
)
"""What a segmentation imports: the kernels when they are first called, torch's tracer with the first custom op."""

MOST_DEATHS = 2
"""How many worker processes a task may take down before it is given up, less one."""

_AHEAD = 2  # tasks per worker that wait at the scheduler, so that no worker waits for the driver
# processes that are forked need not import everything again; Windows cannot
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_SETTINGS = {
    "distributed.worker.multiprocessing-method": _METHOD,
    # looking at the work a hundred times per second took a fifth of it
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.allowed-failures": MOST_DEATHS,
    "distributed.scheduler.worker-saturation": 1.0,  # once many tasks ran: none waits behind one that kills its worker
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


def suits_many(tasks: int) -> bool:
    """Whether "auto" deals so many tasks to several processes."""
    return tasks > SERIAL_TASKS and has_dask()


def import_early(modules: Sequence[str], *, threads: int = 1) -> None:
    """Start the process that the workers of "dask" are forked from, if it does not run yet.

    It imports what they need, once for all, while this process goes on.

    Args:
        modules: As in `run_tasks`, which must get the same.
        threads: As in `run_tasks`.
    """
    if _METHOD != "forkserver":
        return
    from multiprocessing.forkserver import ensure_running  # Windows has none

    with _deaf_to_interrupts(), _environment(threads):
        multiprocessing.set_forkserver_preload(["distributed", *modules])
        ensure_running()


def run_tasks(
    work: Callable[[T], R],
    tasks: Mapping[str, T],
    *,
    engine: str,
    workers: int = 1,
    memory_gb: float | None = None,
    threads: int = 1,
    modules: Sequence[str] = (),
) -> Generator[Done[R], None, None]:
    """Do tasks, and give what each came to, in the order in which they end.

    A task may be done twice: where a process is killed, the task in flight is given to another one. So it must be
    harmless to repeat, and what it gives should be small: results belong into files. What it gave first counts.

    Args:
        work: What to do with a task; for other processes it must be importable by name, or a `partial` of such.
        tasks: By name.
        engine: "dask" for processes of this machine, or the address of a scheduler; see `check_engine`.
        workers: Number of processes, for "dask".
        memory_gb: Memory that each may take before it is ended, in 10^9 bytes, for "dask"; None for its share.
        threads: Threads of libraries that read their number from the environment, for "dask".
        modules: What the work needs, imported once for all processes of "dask", where the system can fork.

    Raises:
        ResourceError: If the scheduler cannot be reached.
    """
    import dask
    from distributed import Client, LocalCluster, as_completed

    # a worker that dies is told of as what became of its task
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(_SETTINGS), ExitStack() as stack:
        if engine == DASK:
            limit = "auto" if memory_gb is None else int(memory_gb * 1e9)
            import_early(modules, threads=threads)
            # nobody but this machine can reach the scheduler, which runs what it is sent
            with _deaf_to_interrupts(), _environment(threads):
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=limit,
                    host="127.0.0.1",
                    dashboard_address=None,
                    # any free port: of one that another run has, a user would be warned
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
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
        heard = _Heard()
        topic = f"voxpool-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, lambda event: heard.note(*event[1]))
        numbers = count()

        def submit(name: str, task: T) -> Any:
            # Dask takes keys that differ in their number for tasks of one kind, and deals them one by one
            future = client.submit(_send, work, task, name, topic, key=f"{topic}-{next(numbers)}", retries=0)
            names[future.key] = name
            return future

        # not all at once: the driver's memory does not grow with their number
        running = as_completed([submit(*item) for item in islice(waiting, max(1, workers) * _AHEAD)])
        for future in running:
            name = names.pop(future.key)
            done = heard.outcome(name, future)
            future.release()  # or it would be done again, should the process that did it die
            for item in islice(waiting, 1) if done else [(name, tasks[name])]:
                running.add(submit(*item))
            if done:
                yield done


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


def _send(work: Callable[[T], R], task: T, name: str, topic: str) -> None:
    """Do a task; tell the scheduler before that it begins, and after it what it gave, before Dask tells of its end.

    Dask leaves results in the processes; what was finished would be lost with one that dies in the next task, and
    asking for it then can wait for ever.
    """
    from distributed import get_client

    client = get_client()
    client.log_event(topic, (name, None))  # returns when the scheduler has it: this process may now die
    client.log_event(topic, (name, pickle.dumps(work(task))))


@dataclass
class _Heard:
    """What the processes told: which tasks they began, and what these gave."""

    results: dict[str, bytes] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, result: bytes | None) -> None:
        """Take what a process told: that it begins a task, or what the task gave."""
        if result is None:
            self.begun[name] += 1
        else:
            self.results.setdefault(name, result)

    def outcome(self, name: str, future: Any) -> Done[Any] | None:
        """What became of a task; None where it is to be done again.

        Dask blames all tasks that were dealt to a process which died, also those that only waited there. A process
        may die before it can tell what it begins: so Dask is believed when it gives a task up more often than
        another one, which kills its processes, can be the reason of.
        """
        from distributed import KilledWorker

        if name in self.results:
            del self.begun[name], self.given_up[name]
            return Done(name, pickle.loads(self.results.pop(name)))
        error = future.exception()
        if not isinstance(error, KilledWorker):
            raise error
        self.given_up[name] += 1
        if self.begun[name] <= MOST_DEATHS and self.given_up[name] <= MOST_DEATHS + 1:
            return None
        deaths = max(self.begun[name], self.given_up[name])
        del self.begun[name], self.given_up[name]
        return Done(
            name,
            None,
            f"{deaths} processes were killed while they worked on it; memory was too small, or a library"
            " crashed: give fewer --workers, or see what the system's log says (E604)",
        )


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What processes started within find: so many threads, which leave the processor to others while they wait."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    wanted = dict.fromkeys(_THREADS, str(threads)) | quiet
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
