"""What a run says: every variant summarised over the cases, and compared with its base and its control."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from voxpool.metrics import ClassScore, Status
from voxpool_pipelines.results import CaseResult, RunResults, Variant, VariantResult
from voxpool_pipelines.statistics import PairedTest, Summary, adjust, count_statuses, paired_test, summarise


@dataclass(frozen=True)
class Comparison:
    """A variant against its base or control, over the cases that both have.

    Attributes:
        reference: Id of the variant that it is compared with.
        foreground: Differences of the foreground mean Dice.
        classes: Differences of the Dice of each class.
    """

    reference: str
    foreground: PairedTest
    classes: dict[str, PairedTest]


@dataclass(frozen=True)
class VariantSummary:
    """One variant over the cases of its finished folds.

    Attributes:
        result: The results that it sums up.
        dice: Dice per class.
        dice_foreground: Mean Dice of a case over its foreground classes.
        dice_with_background: The same mean with the background taken in.
        hd95: HD95 in mm per class, a missed class at the image diagonal.
        hd95_foreground: Mean HD95 of a case over its foreground classes.
        hd95_found: HD95 in mm per class over the cases where it was found, so without the missed ones.
        volume_error: Absolute volume difference in mL per class.
        volume_bias: Volume difference in mL per class, positive when too much was found.
        oracle: Mean oracle Dice per class; empty without supervoxels.
        oracle_foreground: Mean of it over the foreground classes; NaN without supervoxels.
        num_segments: Mean number of supervoxels; NaN without.
        seconds: Mean time per volume.
        supervoxel_seconds: The supervoxels' mean share of it; NaN without.
        counts: How often each status occurred, per class.
        vs_base: Comparison with the base, where there is one.
        vs_control: Comparison with the control, where there is one.
    """

    result: VariantResult
    dice: dict[str, Summary]
    dice_foreground: Summary
    dice_with_background: Summary
    hd95: dict[str, Summary]
    hd95_foreground: Summary
    hd95_found: dict[str, Summary]
    volume_error: dict[str, Summary]
    volume_bias: dict[str, Summary]
    oracle: dict[str, float]
    oracle_foreground: float
    num_segments: float
    seconds: float
    supervoxel_seconds: float
    counts: dict[str, dict[Status, int]]
    vs_base: Comparison | None = None
    vs_control: Comparison | None = None

    @property
    def variant(self) -> Variant:
        """The variant itself."""
        return self.result.variant

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return self.result.folds[0].parameters

    def total(self, status: Status) -> int:
        """How often a status occurred, over all classes."""
        return sum(counts[status] for counts in self.counts.values())


@dataclass(frozen=True)
class RunSummary:
    """A run and the summaries of its variants, in the run's order."""

    run: RunResults
    variants: tuple[VariantSummary, ...]

    def find(self, **wanted: Any) -> VariantSummary | None:
        """The first variant whose fields have the wanted values, or None."""
        found = self.run.find(**wanted)
        return None if found is None else next(each for each in self.variants if each.result is found)

    def best(self, candidates: Iterable[VariantSummary] | None = None) -> VariantSummary | None:
        """The finished variant with the highest mean foreground Dice, or None when none is finished."""
        finished = [
            each
            for each in (self.variants if candidates is None else candidates)
            if each.result.complete and each.dice_foreground.n
        ]
        return max(finished, key=lambda each: each.dice_foreground.mean, default=None)


def summarise_run(run: RunResults) -> RunSummary:
    """Summarise every variant and compare it with its base and its control.

    Holm's correction runs over the finished variants of the run: one family for the foreground Dice against
    the base, one against the control, and one for the single classes of all variants against each of the two.

    Args:
        run: The run.

    Returns:
        The summaries, in the run's order.
    """
    summaries = [_summarise_variant(result, run.class_names) for result in run.variants]
    against_base = _compare_all(run, "base")
    against_control = _compare_all(run, "control")
    return RunSummary(
        run,
        tuple(
            replace(
                each,
                vs_base=against_base.get(each.variant.id),
                vs_control=against_control.get(each.variant.id),
            )
            for each in summaries
        ),
    )


def _summarise_variant(result: VariantResult, class_names: tuple[str, ...]) -> VariantSummary:
    cases = result.cases

    def per_class(value: Callable[[ClassScore], float]) -> dict[str, Summary]:
        return {name: summarise(value(case.classes[name]) for case in cases) for name in class_names}

    with_oracle = [case.oracle_dice for case in cases if case.oracle_dice is not None]
    return VariantSummary(
        result=result,
        dice=per_class(lambda score: score.dice),
        dice_foreground=summarise(case.dice_foreground for case in cases),
        dice_with_background=summarise(case.dice_with_background for case in cases),
        hd95=per_class(lambda score: score.hd95_mm),
        hd95_foreground=summarise(_mean(score.hd95_mm for score in case.classes.values()) for case in cases),
        hd95_found=per_class(lambda score: score.hd95_mm if score.status == "ok" else math.nan),
        volume_error=per_class(lambda score: abs(score.volume_ml - score.target_volume_ml)),
        volume_bias=per_class(lambda score: score.volume_ml - score.target_volume_ml),
        oracle={
            name: _mean(oracle.get(name, math.nan) for oracle in with_oracle) for name in class_names if with_oracle
        },
        oracle_foreground=_mean(case.oracle_foreground for case in cases),
        num_segments=_mean(case.num_segments for case in cases),
        seconds=_mean(case.seconds for case in cases),
        supervoxel_seconds=_mean(case.supervoxel_seconds for case in cases),
        counts={name: count_statuses(case.classes[name].status for case in cases) for name in class_names},
    )


def _compare_all(run: RunResults, head: str) -> dict[str, Comparison]:
    """Every variant that has such a reference against it, corrected over the finished ones."""
    raw = {}
    for result in run.variants:
        reference = run.reference(result.variant, head)
        if reference is not None and result.variant.head != "base":
            raw[result.variant.id] = compare_variants(result, reference, run.class_names, seed=run.seed)
    finished = [
        result.variant.id for result in run.variants if result.variant.id in raw and _finished(run, result, head)
    ]
    foreground = dict(zip(finished, adjust([raw[name].foreground for name in finished]), strict=True))
    places = [(variant_id, name) for variant_id in finished for name in run.class_names]
    by_class = dict(zip(places, adjust([raw[each].classes[name] for each, name in places]), strict=True))
    return {
        variant_id: replace(
            comparison,
            foreground=foreground.get(variant_id, comparison.foreground),
            classes={name: by_class.get((variant_id, name), test) for name, test in comparison.classes.items()},
        )
        for variant_id, comparison in raw.items()
    }


def _finished(run: RunResults, result: VariantResult, head: str) -> bool:
    reference = run.reference(result.variant, head)
    return result.complete and reference is not None and reference.complete


def compare_variants(
    first: VariantResult, second: VariantResult, class_names: Iterable[str], *, seed: int = 0
) -> Comparison:
    """Compare the Dice of two variants over the cases that both have.

    Args:
        first: The variant.
        second: What to compare it with.
        class_names: Foreground classes.
        seed: Seed of the bootstrap.

    Returns:
        First minus second, without correction for the number of tests.
    """
    others = {case.case_id: case for case in second.cases}
    pairs = [(case, others[case.case_id]) for case in first.cases if case.case_id in others]

    def test(value: Callable[[CaseResult], float]) -> PairedTest:
        return paired_test([value(one) for one, _ in pairs], [value(other) for _, other in pairs], seed=seed)

    return Comparison(
        reference=second.variant.id,
        foreground=test(lambda case: case.dice_foreground),
        classes={name: test(partial(class_dice, name)) for name in class_names},
    )


def class_dice(name: str, case: CaseResult) -> float:
    """Dice of one class in one case."""
    return case.classes[name].dice


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(known) if known else math.nan
