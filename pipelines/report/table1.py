"""The layout of the paper's Table 1: heads in rows, reductions and kinds of supervoxels in columns."""

from collections.abc import Callable
from dataclasses import dataclass

from voxpool.nets import HEADS
from voxpool_pipelines.report.summary import Comparison, RunSummary, VariantSummary
from voxpool_pipelines.report.words import HEAD_TITLES, SIGNIFICANT, group_title
from voxpool_pipelines.results import Variant
from voxpool_pipelines.statistics import PairedTest, Summary

SHARED = ("base", "control")
POOLED = tuple(HEADS)


@dataclass(frozen=True)
class Measure:
    """What the cells of a Table 1 show.

    Attributes:
        key: Short name, unique in the report.
        short: Name where the measure is chosen.
        title: Title for readers.
        value: The mean and SD of a variant.
        oracle: The same mean for the majority labels of a variant's supervoxels; None where it is not known.
        test: The comparison with the base; None where none is made.
        scale: What the value is multiplied with for the reader.
        higher_is_better: Whether more is better.
    """

    key: str
    short: str
    title: str
    value: Callable[[VariantSummary], Summary]
    oracle: Callable[[VariantSummary], float] | None
    test: Callable[[Comparison], PairedTest] | None
    scale: float = 100
    higher_is_better: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell: the variant that it shows, over how many columns, and whether that is its group's best."""

    summary: VariantSummary
    columns: int
    best: bool

    @property
    def partial(self) -> bool:
        """Whether some folds of the variant are not done."""
        return not self.summary.result.complete


@dataclass(frozen=True)
class Group:
    """The columns of one network at one reduction."""

    title: str
    segments: tuple[str | None, ...]


@dataclass(frozen=True)
class Table1:
    """Rows of cells under groups of columns; a None is an empty cell of one column."""

    groups: tuple[Group, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    oracle: tuple[Cell | None, ...]


def measures(class_names: tuple[str, ...]) -> list[Measure]:
    """The measures that a report shows as Table 1, the main one first.

    Args:
        class_names: Foreground classes.

    Returns:
        Foreground Dice, Dice with background, Dice of each class, HD95.
    """

    def of_class(name: str) -> Measure:
        return Measure(
            key=f"class-{name}",
            short=name,
            title=f"Dice {name} (%)",
            value=lambda each: each.dice[name],
            oracle=lambda each: each.oracle[name],
            test=lambda comparison: comparison.classes[name],
        )

    return [
        Measure(
            key="foreground",
            short="foreground mean",
            title="Dice, foreground mean (%)",
            value=lambda each: each.dice_foreground,
            oracle=lambda each: each.oracle_foreground,
            test=lambda comparison: comparison.foreground,
        ),
        *(of_class(name) for name in class_names),
        Measure(
            key="with-background",
            short="with background",
            title="Dice, mean with background (%)",
            value=lambda each: each.dice_with_background,
            oracle=None,
            test=None,
        ),
        Measure(
            key="hd95",
            short="HD95",
            title="HD95, foreground mean (mm)",
            value=lambda each: each.hd95_foreground,
            oracle=None,
            test=None,
            scale=1,
            higher_is_better=False,
        ),
    ]


def lay_out(summary: RunSummary, measure: Measure) -> Table1:
    """Arrange a run as Table 1.

    Args:
        summary: The run, summarised.
        measure: What decides which cell is the best of its group.

    Returns:
        The table. Base and control span the columns of their group, as they do without supervoxels.
    """
    keys = list(dict.fromkeys((each.variant.net, each.variant.reduction) for each in summary.variants))
    groups, rows, oracle = [], {head: [] for head in (*SHARED, *POOLED)}, []  # type: ignore[var-annotated]
    for net, reduction in keys:
        members = [each for each in summary.variants if each.variant.net == net and each.variant.reduction == reduction]
        kinds = dict.fromkeys(each.variant.segments for each in members if each.variant.segments)
        segments = tuple(kinds) or (None,)
        groups.append(Group(group_title(members[0].variant), segments))
        best = _best(members, measure)
        for head in SHARED:
            found = _find(members, head, None)
            rows[head] += [Cell(found, len(segments), found is best)] if found else [None] * len(segments)
        for head in POOLED:
            for kind in segments:
                found = _find(members, head, kind) if kind else None
                rows[head].append(Cell(found, 1, found is best) if found else None)
        for kind in segments:
            first = next((each for each in members if kind and each.variant.segments == kind), None)
            oracle.append(Cell(first, 1, False) if first and first.oracle else None)
    return Table1(
        groups=tuple(groups),
        rows=tuple((HEAD_TITLES[head], tuple(cells)) for head, cells in rows.items() if any(cells)),
        oracle=tuple(oracle),
    )


def significant(test: PairedTest | None) -> bool:
    """Whether a difference stays below the level after Holm's correction."""
    return test is not None and test.p_holm < SIGNIFICANT


def _find(members: list[VariantSummary], head: str, segments: str | None) -> VariantSummary | None:
    return next((each for each in members if (each.variant.head, each.variant.segments) == (head, segments)), None)


def _best(members: list[VariantSummary], measure: Measure) -> VariantSummary | None:
    # While some lack cases, no mean is the best: they are not over the same cases.
    comparable = [each for each in members if measure.value(each).n] if _all_finished(members) else []
    sign = 1 if measure.higher_is_better else -1
    return max(comparable, key=lambda each: sign * measure.value(each).mean, default=None)


def _all_finished(members: list[VariantSummary]) -> bool:
    return all(each.result.complete for each in members)


def unreachable(summary: RunSummary) -> list[tuple[Variant, float, float]]:
    """Hard heads (V1, V2) whose supervoxels allow no better Dice than the base already has.

    Args:
        summary: The run, summarised.

    Returns:
        Variant, its oracle Dice and the Dice of its base, foreground means.
    """
    found = []
    for each in summary.variants:
        base = summary.find(net=each.variant.net, reduction=each.variant.reduction, head="base")
        if (
            each.variant.head in ("v1", "v2")
            and base is not None
            and each.oracle_foreground <= base.dice_foreground.mean
        ):
            found.append((each.variant, each.oracle_foreground, base.dice_foreground.mean))
    return found
