"""Fair times on a shared machine: all candidates in turn, in one process, disturbed samples left out."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

try:
    import resource
except ImportError:  # Windows does not count context switches; there no sample is rejected
    resource = None  # type: ignore[assignment]

# A call's own threads take cores from each other, about as often every time; a sample is clean with at most so many
# switches more than the call's usual ones: a share of them, and some per second for what any system does.
_SPARE_SHARE = 0.5
_SPARE_PER_SECOND = 20
_FEWEST = 2
_FEWEST_CLEAN = 3

Measure = Callable[[Callable[[], object]], tuple[float, int]]
"""Runs a call once: its seconds, and how often a thread of this process lost its core meanwhile."""


@dataclass(frozen=True)
class Timing:
    """The time of one candidate.

    Attributes:
        seconds: Median of the samples that count.
        low: Fastest of them.
        high: Slowest of them.
        samples: Their number.
        rejected: Samples left out because other work took a core away meanwhile.
        clean: Whether there were enough undisturbed samples; if not, the faster half of all counts.
    """

    seconds: float
    low: float
    high: float
    samples: int
    rejected: int
    clean: bool


@dataclass
class _Samples:
    every: list[tuple[float, int]] = field(default_factory=list)

    def clean(self) -> list[float]:
        usual = statistics.median(switches for _, switches in self.every)
        fastest = min(seconds for seconds, _ in self.every)
        allowed = usual * (1 + _SPARE_SHARE) + 1 + fastest * _SPARE_PER_SECOND
        return [seconds for seconds, switches in self.every if switches <= allowed]

    def done(self, samples: int, share: float) -> bool:
        spent = sum(seconds for seconds, _ in self.every) > share and len(self.every) >= _FEWEST
        return spent or len(self.clean()) >= samples

    def timing(self) -> Timing:
        counted = self.clean()
        enough = len(counted) >= min(_FEWEST_CLEAN, len(self.every))
        if not enough:
            counted = sorted(seconds for seconds, _ in self.every)[: -(-len(self.every) // 2)]
        rejected = len(self.every) - len(counted)
        return Timing(statistics.median(counted), min(counted), max(counted), len(counted), rejected, enough)


def interleave(
    calls: Mapping[str, Callable[[], object]], *, samples: int, budget: float, measure: Measure
) -> dict[str, Timing]:
    """Time candidates round by round, so that a slow minute of the machine meets all of them alike.

    Every call is run once before, unmeasured. A call has done when it has its clean samples, or has used up its
    equal share of the budget and has two samples.

    Args:
        calls: What to time, by name.
        samples: Clean samples wanted of each.
        budget: Seconds for all, not counting the first runs.
        measure: Runs and times one call: `measure_cpu` or `measure_cuda`.

    Returns:
        The times, by name.
    """
    found = {name: _Samples() for name in calls}
    for call in calls.values():
        call()
    share = budget / max(1, len(calls))
    waiting = dict(calls)
    while waiting:
        for name, call in list(waiting.items()):
            found[name].every.append(measure(call))
            if found[name].done(samples, share):
                del waiting[name]
    return {name: each.timing() for name, each in found.items()}


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def measure_cpu(call: Callable[[], object]) -> tuple[float, int]:
    """Time a call on the CPU; what it returns is freed after the clock has stopped.

    Args:
        call: What to time.

    Returns:
        Seconds, and how often a thread of this process lost its core meanwhile.
    """
    switches, start = _switches(), time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    disturbed = _switches() - switches
    del result
    return seconds, disturbed


def measure_cuda(call: Callable[[], object]) -> tuple[float, int]:
    """Time a call on the current CUDA device by events, so that only the device's own time counts.

    Args:
        call: What to time; it should not wait for the device.

    Returns:
        Seconds between the events, and 0.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    result = call()
    end.record()
    end.synchronize()
    del result
    return start.elapsed_time(end) / 1000, 0
