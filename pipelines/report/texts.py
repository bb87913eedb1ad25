"""What the report says in words: findings, definitions, facts about the run, limitations."""

import json
import math

import numpy as np

from voxpool.metrics import STATUSES
from voxpool_pipelines.report.summary import RunSummary, VariantSummary
from voxpool_pipelines.report.table1 import POOLED, significant, unreachable
from voxpool_pipelines.report.words import (
    SIGNIFICANT,
    STATUS_TITLES,
    count,
    number,
    p_value,
    percent,
    plural,
    signed,
    spread,
    title,
)
from voxpool_pipelines.statistics import BOOTSTRAP_SAMPLES, PairedTest, smallest_p

POLICY_HEAD = ("Truth", "Prediction", "Dice", "HD95 and ASSD", "Status", "In the mean")
POLICY = (
    ("empty", "empty", "none", "none", "absent", "left out, counted"),
    ("empty", "not empty", "0", "none", "false positive", "Dice as 0, counted"),
    ("not empty", "empty", "0", "diagonal of the image (mm)", "missed", "taken in"),
    ("not empty", "not empty", "value", "value", "scored", "taken in"),
)

DEFINITIONS = (
    (
        "Dice",
        "2 |P ∩ T| / (|P| + |T|) on the grid of the truth. The foreground mean averages the classes of a "
        "case first and then the cases. The background is never part of it; the mean with background is "
        "given because published tables often leave open which of the two they show.",
    ),
    (
        "HD95",
        "95th percentile Hausdorff distance in mm: the larger of the two directed 95th percentiles of the "
        "distances between boundary voxels (MONAI). Other tools pool the distances or weight them by area, "
        "and get other values.",
    ),
    ("ASSD", "average symmetric surface distance in mm over the boundary voxels of both surfaces (MONAI)."),
    (
        "Volume error",
        "absolute difference between the predicted and the true volume in mL, averaged over the cases.",
    ),
    (
        "Pooling of the folds",
        "every case is scored once, by the network of the fold that held it out. Means, deviations and tests "
        "run over cases, never over fold means.",
    ),
    (
        "Oracle",
        "Dice of painting every supervoxel with the majority label of the truth (ties: the lowest class). It "
        "is the reference of heads V1 and V2, which give each supervoxel one label.",
    ),
    (
        "Control",
        "the base trained on for the heads' share of the iterations, so that a head's gain is not just more training.",
    ),
    (
        "Paired tests",
        "two-sided Wilcoxon signed-rank test over cases (zeros after Pratt), Holm's correction over all "
        "variants of the run, matched-pairs rank-biserial correlation r as effect size, and a 95 % "
        f"percentile bootstrap interval of the median difference ({count(BOOTSTRAP_SAMPLES)} resamples of "
        "the cases, seeded). Tests of single classes form a family of their own.",
    ),
)


def findings(summary: RunSummary) -> list[str]:
    """The answer in a few sentences.

    Args:
        summary: The run, summarised.

    Returns:
        The best variant, what the heads changed, what was missed, and what is not done yet.
    """
    best = summary.best()
    said = []
    if best is not None:
        so_far = "" if summary.run.complete else " so far"
        said.append(
            f"Best foreground Dice{so_far}: {title(best.variant)} with {spread(best.dice_foreground)} % "
            f"(median {percent(best.dice_foreground.median)} %) over {plural(len(best.result.cases), 'case')}"
            f"{_gain(best)}."
        )
    said += _heads_against(summary, "base")
    said += _heads_against(summary, "control")
    missed, invented = (sum(each.total(status) for each in summary.variants) for status in ("missed", "false_positive"))
    if missed or invented:
        said.append(
            f"Over all variants, {plural(missed, 'structure was', 'structures were')} missed and "
            f"{plural(invented, 'structure', 'structures')} found where the truth has none."
        )
    open_ends = [each for each in summary.variants if not each.result.complete]
    if open_ends:
        listed = ", ".join(
            f"{title(each.variant)} ({len(each.result.folds)} of {len(summary.run.asked_folds)} folds)"
            for each in open_ends
        )
        said.append(f"Not on all cases, marked †: {listed}.")
    return said


def coarse_supervoxels(summary: RunSummary) -> str:
    """Names the hard heads whose oracle lies below their base; empty when there is none."""
    listed = "; ".join(
        f"{title(variant)} (oracle {percent(oracle)} %, base {percent(base)} %)"
        for variant, oracle, base in unreachable(summary)
    )
    return f"Supervoxels too coarse for a hard head to beat its base: {listed}." if listed else ""


def _gain(best: VariantSummary) -> str:
    if best.vs_base is None:
        return ""
    test = best.vs_base.foreground
    return f", a median of {difference(test)} points against its base (Holm p {_p(test.p_holm)})"


def _heads_against(summary: RunSummary, reference: str) -> list[str]:
    pooled = [each for each in summary.variants if each.variant.head in POOLED]
    comparisons = [
        (each, comparison.foreground)
        for each in pooled
        if (comparison := each.vs_base if reference == "base" else each.vs_control) is not None
        and not math.isnan(comparison.foreground.p_holm)
    ]
    if not comparisons:
        return []
    better = [each for each, test in comparisons if significant(test) and test.median > 0]
    worse = [each for each, test in comparisons if significant(test) and test.median < 0]
    those = plural(len(comparisons), "variant")
    if not better and not worse:
        return [f"Against the {reference}, none of {those} with supervoxels differs at Holm p < {SIGNIFICANT}."]
    return [
        f"Against the {reference}, of {those} with supervoxels {len(better)} {_be(better)} better at "
        f"Holm p < {SIGNIFICANT}{_named(better)} and {len(worse)} {_be(worse)} worse{_named(worse)}."
    ]


def _be(variants: list[VariantSummary]) -> str:
    return "is" if len(variants) == 1 else "are"


def _named(variants: list[VariantSummary]) -> str:
    return f" ({', '.join(title(each.variant) for each in variants)})" if 0 < len(variants) <= 4 else ""


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def difference(test: PairedTest) -> str:
    """Median difference in Dice points with its interval."""
    if not test.n:
        return "–"
    return f"{signed(100 * test.median)} [{signed(100 * test.ci_low)}, {signed(100 * test.ci_high)}]"


def facts(summary: RunSummary) -> list[tuple[str, str]]:
    """Facts about data and run for the reader who wants to repeat it.

    Args:
        summary: The run, summarised.

    Returns:
        Term and value.
    """
    run = summary.run
    labels = ", ".join(f"{label} {name}" for label, name in sorted(run.data.label_names.items()))
    subjects = len({case.subject for case in run.cases.values()})
    folds = "; ".join(
        f"fold {index}: {len(split.train)} train, {len(split.val)} held out" for index, split in enumerate(run.splits)
    )
    return [
        ("Data", f"{run.data.name}: {plural(run.data.cases, 'case')} of {plural(subjects, 'subject')}"),
        ("Labels", labels),
        ("Label convention", run.data.convention),
        ("Folds", folds),
        ("Seed", str(run.seed)),
        ("Device", run.device),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]


def options(summary: RunSummary) -> list[tuple[str, str]]:
    """Every option of the run.

    Args:
        summary: The run, summarised.

    Returns:
        Name and value.
    """
    return [(name, _option(value)) for name, value in summary.run.config.items()]


def _option(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(str(each) for each in value)
    return json.dumps(value, ensure_ascii=False)


def limitations(summary: RunSummary) -> list[str]:
    """What the numbers do not show.

    Args:
        summary: The run, summarised.

    Returns:
        Sentences.
    """
    run = summary.run
    cases = len(run.held_out)
    said = [
        _power(summary, cases),
        "The networks of a cross-validation share most of their training cases, so cases are not independent "
        "draws and p-values are approximate.",
        "One seed was trained per variant and fold; the spread between seeds is not part of the deviations.",
        f"Inference times were taken on one machine ({run.device}) and include supervoxels and pooling.",
        "Results hold for these data, this label convention and this preprocessing.",
        "For research use only. Not a medical device; not for diagnosis or treatment.",
    ]
    if len(run.asked_folds) < len(run.splits):
        listed = ", ".join(str(fold) for fold in run.asked_folds)
        said.append(f"The run was restricted to {len(run.asked_folds)} of {len(run.splits)} folds ({listed}).")
    return said


def _power(summary: RunSummary, cases: int) -> str:
    tests = [each.vs_base.foreground for each in summary.variants if each.vs_base]
    family = sum(not math.isnan(test.p_holm) for test in tests)
    best = smallest_p(cases)
    said = f"n = {cases} limits power: the smallest two-sided p of {plural(cases, 'pair')} is {_small(best)}"
    if family:
        corrected = min(1.0, best * family)
        said += f", {_small(corrected)} after Holm over {plural(family, 'comparison')}"
        if corrected >= SIGNIFICANT:
            said += ", so no difference of this run can be significant"
    return f"{said}."


def _small(p: float) -> str:
    return np.format_float_positional(p, precision=2, fractional=False)


def counts_note(each: VariantSummary) -> str:
    """How often the policy had to decide, such as `2 missed`; empty when every class was scored."""
    parts = [f"{each.total(status)} {STATUS_TITLES[status]}" for status in STATUSES[1:] if each.total(status)]
    return ", ".join(parts)


def supervoxel_note(each: VariantSummary) -> str:
    """What supervoxels each fold asked for."""
    asked = list(dict.fromkeys((fold.n_segments, fold.compactness) for fold in each.result.folds))
    return "; ".join(
        f"{n_segments} requested" + ("" if compactness is None else f", compactness {number(compactness, 3)}")
        for n_segments, compactness in asked
        if n_segments is not None
    )
