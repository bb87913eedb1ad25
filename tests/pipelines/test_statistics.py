"""Summaries and paired tests, against SciPy used directly and against numbers worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from voxpool_pipelines.statistics import (
    Summary,
    adjust,
    count_statuses,
    holm,
    paired_test,
    smallest_p,
    summarise,
)

# Hollander and Wolfe's depression scores: a published example with p = 0.0391 (two-sided, exact).
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def exact_p(difference: np.ndarray) -> float:
    """Two-sided signed-rank p by listing every sign pattern; zeros keep their ranks and then drop out."""
    ranks = stats.rankdata(np.abs(difference))
    ranks = ranks[difference != 0]
    signs = np.sign(difference[difference != 0])
    centre = ranks.sum() / 2
    observed = abs(ranks[signs > 0].sum() - centre)
    patterns = np.array(list(itertools.product([0, 1], repeat=ranks.size)))
    return float((np.abs(patterns @ ranks - centre) >= observed - 1e-9).mean())


def test_a_published_example() -> None:
    test = paired_test(BEFORE, AFTER)
    assert test.p == pytest.approx(0.0391, abs=5e-5)
    assert test.n == 9
    assert test.mean == pytest.approx(np.mean(np.subtract(BEFORE, AFTER)))
    assert test.median == pytest.approx(np.median(np.subtract(BEFORE, AFTER)))
    # Ranks of |difference|: the negative ones have 3 and 2, of 45 in all.
    assert test.rank_biserial == pytest.approx((40 - 5) / 45)
    assert math.isnan(test.p_holm)


@pytest.mark.parametrize("seed", range(8))
def test_p_equals_the_list_of_all_sign_patterns(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Steps of 0.25 are exact in binary, and give ties and zeros.
    first, second = random.integers(0, 6, size=(2, 9)) / 4
    test = paired_test(first, second)
    assert test.p == pytest.approx(exact_p(first - second), rel=1e-9)


def test_zeros_keep_their_ranks() -> None:
    # Ranks 3, 4, -5, 6, 7 of 25: the rank sums at most as small as 5 are {}, 3, 4 and 5, so p = 2 * 4 / 2^5.
    # Without the two zeros the ranks would be 1, 2, -3, 4, 5 and p = 2 * 5 / 2^5.
    test = paired_test([0, 0, 1, 2, -3, 4, 5], [0] * 7)
    assert test.p == pytest.approx(0.25)
    assert test.rank_biserial == pytest.approx((20 - 5) / 25)


def test_direction_and_symmetry() -> None:
    forth, back = paired_test(BEFORE, AFTER, seed=3), paired_test(AFTER, BEFORE, seed=3)
    assert back.p == forth.p
    assert back.rank_biserial == -forth.rank_biserial
    assert back.mean == -forth.mean
    assert (back.ci_low, back.ci_high) == pytest.approx((-forth.ci_high, -forth.ci_low))


def test_all_cases_better() -> None:
    first = np.linspace(0.8, 0.9, 7) + np.arange(1, 8) / 1000
    test = paired_test(first, np.linspace(0.8, 0.9, 7))
    assert test.rank_biserial == 1
    assert test.p == pytest.approx(2 / 2**7) == smallest_p(7)
    assert 0 < test.ci_low <= test.median <= test.ci_high


def test_no_difference_is_no_evidence() -> None:
    test = paired_test([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert (test.p, test.rank_biserial, test.median, test.ci_low, test.ci_high) == (1, 0, 0, 0, 0)


def test_ties_survive_rounding_errors() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the last bit; as a tie of opposite signs they must cancel.
    test = paired_test([0.3, 0.1], [0.2, 0.2])
    assert test.rank_biserial == 0
    assert test.p == 1


def test_pairs_with_a_missing_value_are_left_out() -> None:
    nan = math.nan
    test = paired_test([*BEFORE, nan, 0.5, nan], [*AFTER, 0.5, nan, nan])
    whole = paired_test(BEFORE, AFTER)
    assert (test.n, test.p, test.mean, test.median) == (9, whole.p, whole.mean, whole.median)
    nothing = paired_test([nan], [0.5])
    assert nothing.n == 0
    assert math.isnan(nothing.p)
    assert math.isnan(nothing.median)


def test_bootstrap_interval_equals_scipy() -> None:
    random = np.random.default_rng(0)
    difference = random.normal(0.01, 0.02, size=40)
    test = paired_test(difference, np.zeros(40), seed=1)
    reference = stats.bootstrap(
        (difference,), np.median, method="percentile", n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert (test.ci_low, test.ci_high) == pytest.approx(tuple(reference), abs=1e-9)


def test_holm_by_hand() -> None:
    # Sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 -> .06, as it may not fall again.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


def test_holm_leaves_out_tests_that_were_not_made() -> None:
    adjusted = holm([0.02, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


def test_adjust_fills_in_holm_alone() -> None:
    tests = [paired_test(BEFORE, AFTER), paired_test(AFTER[::-1], BEFORE)]
    adjusted = adjust(tests)
    assert [test.p_holm for test in adjusted] == pytest.approx(holm([test.p for test in tests]))
    assert [test.p for test in adjusted] == [test.p for test in tests]


def test_summary() -> None:
    summary = summarise([4.0, 1.0, math.nan, 2.0, 3.0])
    assert summary == Summary(4, 2.5, pytest.approx(math.sqrt(5 / 3)), 2.5, 1.75, 3.25)
    assert math.isnan(summarise([0.5]).sd)
    assert summarise([0.5]).mean == 0.5
    assert summarise([math.nan]).n == 0
    assert math.isnan(summarise([]).mean)


def test_counts_name_every_status() -> None:
    assert count_statuses(["ok", "missed", "ok"]) == {
        "ok": 2,
        "missed": 1,
        "false_positive": 0,
        "absent_ok": 0,
    }


def test_smallest_p() -> None:
    assert smallest_p(6) == 2 / 64
    assert smallest_p(0) == 1
