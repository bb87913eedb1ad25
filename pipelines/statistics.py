"""Summaries of scores, and paired comparisons of two variants over the same cases."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from voxpool.metrics import STATUSES, Status

BOOTSTRAP_SAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """A score over the cases that have one.

    Attributes:
        n: Number of cases with a value.
        mean: Mean.
        sd: Sample standard deviation (n - 1); NaN below two cases.
        median: Median.
        q1: First quartile.
        q3: Third quartile.
    """

    n: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class PairedTest:
    """Differences between two variants on the same cases, the first minus the second.

    Attributes:
        n: Number of cases that both variants have a value for.
        mean: Mean difference.
        median: Median difference.
        ci_low: Lower end of the bootstrap interval of the median difference.
        ci_high: Upper end of it.
        p: Two-sided Wilcoxon signed-rank p-value, zeros after Pratt; 1 when no case differs.
        p_holm: The same after Holm's correction over its family; NaN until `adjust` fills it.
        rank_biserial: Matched-pairs rank-biserial correlation, -1 to 1: positive when the first is larger.
    """

    n: int
    mean: float
    median: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    rank_biserial: float


def summarise(values: Iterable[float]) -> Summary:
    """Summarise a score over cases; NaN means that a case has none.

    Args:
        values: One value per case.

    Returns:
        The summary, with NaN throughout when no case has a value.
    """
    known = np.array([value for value in values if not math.isnan(value)], dtype=float)
    if not known.size:
        return Summary(0, *[math.nan] * 5)
    q1, median, q3 = np.quantile(known, [0.25, 0.5, 0.75])
    sd = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return Summary(known.size, float(known.mean()), sd, float(median), float(q1), float(q3))


def count_statuses(statuses: Iterable[Status]) -> dict[Status, int]:
    """Count each status of the metrics policy, zeros included.

    Args:
        statuses: One status per case.

    Returns:
        The number of cases of each status.
    """
    counts = Counter(statuses)
    return {status: counts[status] for status in STATUSES}


def paired_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> PairedTest:
    """Compare two scores over the same cases.

    Args:
        first: One value per case.
        second: One value per case, in the same order; a pair with a NaN is left out.
        seed: Seed of the bootstrap.

    Returns:
        The paired comparison of `first` minus `second`.
    """
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    difference = difference[~np.isnan(difference)]
    # Equal counts can give Dice values that differ in the last bit, which would break ties between the ranks.
    difference = np.round(difference, 12)
    if not difference.size:
        return PairedTest(0, *[math.nan] * 7)
    low, high = _bootstrap_median(difference, seed)
    return PairedTest(
        n=difference.size,
        mean=float(difference.mean()),
        median=float(np.median(difference)),
        ci_low=low,
        ci_high=high,
        p=_wilcoxon(difference),
        p_holm=math.nan,
        rank_biserial=_rank_biserial(difference),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values.

    Args:
        p_values: The family; NaN marks a test that was not made and does not count.

    Returns:
        The adjusted p-values in the same order, NaN where there was none.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def adjust(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Fill in `p_holm` for a family of tests.

    Args:
        tests: The family.

    Returns:
        The same tests in the same order, corrected.
    """
    corrected = holm([test.p for test in tests])
    return [dataclasses.replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def smallest_p(n: int) -> float:
    """The smallest two-sided p-value that a signed-rank test can reach.

    Args:
        n: Number of pairs.

    Returns:
        2 / 2^n, when every pair differs in the same direction.
    """
    return min(1.0, 2.0 ** (1 - n))


def _wilcoxon(difference: np.ndarray) -> float:
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, zero_method="pratt").pvalue)


def _rank_biserial(difference: np.ndarray) -> float:
    """Favourable minus unfavourable rank sum over both; zeros are ranked, then dropped, as in the test."""
    ranks = stats.rankdata(np.abs(difference))
    total = ranks[difference != 0].sum()
    if total == 0:
        return 0.0
    return float((ranks[difference > 0].sum() - ranks[difference < 0].sum()) / total)


def _bootstrap_median(difference: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile interval of the median over resampled cases."""
    random = np.random.default_rng(seed)
    # In portions, so that memory does not grow with the cohort.
    medians = np.concatenate(
        [
            np.median(difference[random.integers(difference.size, size=(500, difference.size))], axis=1)
            for _ in range(BOOTSTRAP_SAMPLES // 500)
        ]
    )
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
