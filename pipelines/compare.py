"""Two cross-validation runs compared case by case."""

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxpool.errors import InputError, UsageError
from voxpool_pipelines.report.markdown import markdown_table
from voxpool_pipelines.report.summary import class_dice, compare_variants
from voxpool_pipelines.report.texts import difference
from voxpool_pipelines.report.words import p_value, plural, signed, spread
from voxpool_pipelines.results import CaseResult, RunResults, VariantResult, load_run
from voxpool_pipelines.statistics import PairedTest, Summary, adjust, summarise

# Dice values rest on voxel counts: a target whose volume differs by more is another target.
_SAME_VOLUME_ML = 1e-6

_HEAD = ("", "A %", "B %", "B − A, median [95 % CI]", "mean", "p", "Holm p", "r")


@dataclass(frozen=True)
class ScoreComparison:
    """One Dice score in both runs.

    Attributes:
        first: The score in run A.
        second: The score in run B.
        test: B minus A over the cases.
    """

    first: Summary
    second: Summary
    test: PairedTest


@dataclass(frozen=True)
class VariantPair:
    """A variant of run A beside one of run B.

    Attributes:
        variant_a: Id in run A.
        variant_b: Id in run B.
        foreground: The mean over the foreground classes.
        classes: Each class.
    """

    variant_a: str
    variant_b: str
    foreground: ScoreComparison
    classes: dict[str, ScoreComparison]


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same cases and folds.

    Attributes:
        run_a: Path of run A.
        run_b: Path of run B.
        cases: Number of cases that the runs hold out.
        folds: Number of folds.
        pairs: The compared variants.
        only_a: Variants that only run A has.
        only_b: Variants that only run B has.
    """

    run_a: str
    run_b: str
    cases: int
    folds: int
    pairs: tuple[VariantPair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_runs(
    run_a: str | Path, run_b: str | Path, *, variant_a: str | None = None, variant_b: str | None = None
) -> Comparison:
    """Compare the Dice of two runs, paired by case.

    Without a choice, variants of the same id are paired. Holm's correction runs over the pairs for the
    foreground mean, and over the classes within each pair.

    Args:
        run_a: Run directory.
        run_b: Run directory; may be the same one when two variants are named.
        variant_a: Id of the variant of run A.
        variant_b: Id of the variant of run B; by default the one of run A.

    Returns:
        The comparison; differences are B minus A.

    Raises:
        InputError: If a run cannot be read, or if cases, folds, classes or targets differ.
        UsageError: If a variant does not exist, or nothing is left to compare.
    """
    first, second = load_run(run_a), load_run(run_b)
    _check_same_task(first, second)
    pairs = _pair(first, second, variant_a, variant_b)
    compared = [_compare(first, one, second, other) for one, other in pairs]
    foreground = adjust([pair.foreground.test for pair in compared])
    ids_a, ids_b = ({result.variant.id for result in run.variants} for run in (first, second))
    everything = variant_a is None and variant_b is None
    return Comparison(
        run_a=str(run_a),
        run_b=str(run_b),
        cases=len(first.held_out),
        folds=len(first.asked_folds),
        pairs=tuple(
            replace(pair, foreground=replace(pair.foreground, test=test))
            for pair, test in zip(compared, foreground, strict=True)
        ),
        only_a=tuple(sorted(ids_a - ids_b)) if everything else (),
        only_b=tuple(sorted(ids_b - ids_a)) if everything else (),
    )


def render_text(comparison: Comparison) -> str:
    """The comparison for a terminal.

    Args:
        comparison: What `compare_runs` found.

    Returns:
        Lines with aligned columns.
    """
    lines = [f"A: {comparison.run_a}", f"B: {comparison.run_b}", textwrap.fill(_task(comparison), 100)]
    for pair in comparison.pairs:
        rows = [_HEAD, *_rows(pair)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines += ["", _pair_title(pair)]
        for name, *cells in rows:
            aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join(["", name.ljust(widths[0]), *aligned]))
    return "\n".join([*lines, *_leftovers(comparison)])


def render_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown.

    Args:
        comparison: What `compare_runs` found.

    Returns:
        The document.
    """
    parts = [
        "# Comparison of two runs",
        f"- A: `{comparison.run_a}`\n- B: `{comparison.run_b}`",
        _task(comparison),
    ]
    for pair in comparison.pairs:
        parts += [f"## {_pair_title(pair)}", markdown_table(_HEAD, _rows(pair))]
    return "\n\n".join([*parts, *_leftovers(comparison)]) + "\n"


def render_json(comparison: Comparison) -> str:
    """The comparison as JSON; Dice values are 0 to 1, what does not exist is null.

    Args:
        comparison: What `compare_runs` found.

    Returns:
        One document.
    """
    return json.dumps(_without_nan({"schema": 1, **asdict(comparison)}), indent=1, ensure_ascii=False)


def _check_same_task(first: RunResults, second: RunResults) -> None:
    differing = sorted({case for _, case in first.held_out} ^ {case for _, case in second.held_out})
    if differing:
        raise InputError(
            f"{first.path} and {second.path} do not score the same cases ({plural(len(differing), 'case')} "
            f"in one only, such as {differing[0]}); compare runs on the same data and folds"
        )
    if _splits(first) != _splits(second):
        raise InputError(
            f"{first.path / 'folds.json'} and {second.path / 'folds.json'} split the cases differently; "
            "run one again with the other's folds (--folds-file)"
        )
    if first.class_names != second.class_names:
        raise InputError(
            f"{first.path} scores {', '.join(first.class_names)} but {second.path} scores "
            f"{', '.join(second.class_names)}; compare runs with the same labels"
        )


def _splits(run: RunResults) -> set[tuple[frozenset[str], frozenset[str]]]:
    return {(frozenset(run.splits[fold].train), frozenset(run.splits[fold].val)) for fold in run.asked_folds}


def _pair(
    first: RunResults, second: RunResults, variant_a: str | None, variant_b: str | None
) -> list[tuple[VariantResult, VariantResult]]:
    if variant_a is None and variant_b is not None:
        variant_a = variant_b
    if variant_a is not None:
        return [(_find(first, variant_a), _find(second, variant_b or variant_a))]
    if first.path.resolve() == second.path.resolve():
        raise UsageError(f"{first.path} is given twice; name two variants of it with --variant-a and --variant-b")
    shared = [(one, other) for one in first.variants if (other := second.find(id=one.variant.id)) is not None]
    if not shared:
        raise UsageError(
            f"{first.path} and {second.path} have no variant in common; name one of each with --variant-a "
            "and --variant-b"
        )
    return shared


def _find(run: RunResults, variant_id: str) -> VariantResult:
    found = run.find(id=variant_id)
    if found is None:
        known = ", ".join(result.variant.id for result in run.variants)
        raise UsageError(f"{run.path} has no variant {variant_id}; it has {known}")
    return found


def _compare(first: RunResults, one: VariantResult, second: RunResults, other: VariantResult) -> VariantPair:
    for run, result in ((first, one), (second, other)):
        if not result.complete:
            raise InputError(
                f"{run.path}: {result.variant.id} lacks fold {result.missing_folds[0]}; finish the run, or "
                "choose finished variants with --variant-a and --variant-b"
            )
    _check_same_targets(first, one, second, other)
    tests = compare_variants(other, one, first.class_names, seed=first.seed)
    by_class = dict(zip(tests.classes, adjust(list(tests.classes.values())), strict=True))

    def score(value: Callable[[CaseResult], float], test: PairedTest) -> ScoreComparison:
        first_scores, second_scores = ([value(case) for case in result.cases] for result in (one, other))
        return ScoreComparison(summarise(first_scores), summarise(second_scores), test)

    return VariantPair(
        variant_a=one.variant.id,
        variant_b=other.variant.id,
        foreground=score(lambda case: case.dice_foreground, tests.foreground),
        classes={name: score(partial(class_dice, name), test) for name, test in by_class.items()},
    )


def _check_same_targets(first: RunResults, one: VariantResult, second: RunResults, other: VariantResult) -> None:
    for case, twin in zip(one.cases, other.cases, strict=True):
        for name, score in case.classes.items():
            wanted, found = score.target_volume_ml, twin.classes[name].target_volume_ml
            if abs(wanted - found) > _SAME_VOLUME_ML:
                raise InputError(
                    f"the target of case {case.case_id} holds {wanted:.3f} mL of {name} in {first.path} but "
                    f"{found:.3f} mL in {second.path}; compare runs on the same labels"
                )


def _task(comparison: Comparison) -> str:
    return (
        f"{plural(comparison.cases, 'case')} in {plural(comparison.folds, 'fold')}. Dice, mean ± SD in "
        "percent; differences in percentage points over the same cases; two-sided Wilcoxon signed-rank test, "
        "Holm over the variants for the foreground and over the classes within a variant; r is the "
        "rank-biserial effect size."
    )


def _pair_title(pair: VariantPair) -> str:
    if pair.variant_a == pair.variant_b:
        return pair.variant_a
    return f"A {pair.variant_a}, B {pair.variant_b}"


def _rows(pair: VariantPair) -> list[Sequence[str]]:
    return [
        (
            name,
            spread(score.first),
            spread(score.second),
            difference(score.test),
            signed(100 * score.test.mean),
            p_value(score.test.p),
            p_value(score.test.p_holm),
            signed(score.test.rank_biserial, 2),
        )
        for name, score in (("foreground mean", pair.foreground), *pair.classes.items())
    ]


def _leftovers(comparison: Comparison) -> list[str]:
    return [
        f"Only in {name}: {', '.join(variants)}."
        for name, variants in (("A", comparison.only_a), ("B", comparison.only_b))
        if variants
    ]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
