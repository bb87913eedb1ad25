"""The tables of the HTML report."""

import math

from voxpool_pipelines.report.markup import Markup, join, table, tag
from voxpool_pipelines.report.summary import Comparison, RunSummary, VariantSummary
from voxpool_pipelines.report.table1 import Cell, Measure, lay_out, significant
from voxpool_pipelines.report.texts import POLICY, POLICY_HEAD, counts_note, difference, supervoxel_note
from voxpool_pipelines.report.words import (
    HEAD_TITLES,
    MISSING,
    SEGMENT_TITLES,
    count,
    number,
    p_value,
    percent,
    seconds,
    signed,
    spread,
    title,
)
from voxpool_pipelines.statistics import Summary


def table1(summary: RunSummary, measure: Measure) -> Markup:
    """The paper's Table 1 for one measure.

    Args:
        summary: The run, summarised.
        measure: What the cells show.

    Returns:
        The table; each cell holds mean ± SD and, for heads, the median difference to the base.
    """
    layout = lay_out(summary, measure)
    head = [
        [
            tag("th", "Head", rowspan=2, scope="col", class_="text"),
            *(tag("th", group.title, colspan=len(group.segments), scope="colgroup") for group in layout.groups),
        ],
        [
            tag("th", SEGMENT_TITLES.get(kind or "", kind or MISSING), scope="col", class_=_edge(index))
            for group in layout.groups
            for index, kind in enumerate(group.segments)
        ],
    ]
    body = [
        [
            tag("th", "Base network" if name == HEAD_TITLES["base"] else name, scope="row"),
            *_cells(cells, measure),
        ]
        for name, cells in layout.rows
    ]
    if measure.oracle is not None and any(layout.oracle):
        body.append([tag("th", "Supervoxel oracle", scope="row"), *_oracle_cells(layout.oracle, measure)])
    return table(head, body, caption=measure.title, class_="table1")


def _cells(cells: tuple[Cell | None, ...], measure: Measure) -> list[Markup]:
    made = []
    for cell in cells:
        if cell is None:
            made.append(tag("td", MISSING, class_="none"))
            continue
        value = measure.value(cell.summary)
        mean = tag("b" if cell.best else "span", number(measure.scale * value.mean), class_="value")
        made.append(
            tag(
                "td",
                mean,
                tag("span", f" ± {number(measure.scale * value.sd)}", class_="sd") if value.n > 1 else "",
                tag("sup", "†") if cell.partial else "",
                _change(cell.summary.vs_base, measure),
                colspan=cell.columns if cell.columns > 1 else None,
                class_="best" if cell.best else None,
            )
        )
    return made


def _change(comparison: Comparison | None, measure: Measure) -> Markup | str:
    if comparison is None or measure.test is None or not (test := measure.test(comparison)).n:
        return ""
    star = "*" if significant(test) else ""
    direction = "up" if test.median > 0 else "down" if test.median < 0 else "level"
    return tag("span", f"{signed(100 * test.median)}{star}", class_=f"change {direction}{' sure' if star else ''}")


def _oracle_cells(cells: tuple[Cell | None, ...], measure: Measure) -> list[Markup]:
    assert measure.oracle is not None
    return [
        tag("td", MISSING if cell is None else percent(measure.oracle(cell.summary)), class_="oracle") for cell in cells
    ]


def _edge(index: int) -> str | None:
    return "edge" if index == 0 else None


def comparisons(summary: RunSummary) -> Markup:
    """Paired differences of the foreground Dice, against the base and against the control.

    Args:
        summary: The run, summarised.

    Returns:
        The table, or a sentence when there is nothing to compare.
    """
    rows = [each for each in summary.variants if each.vs_base or each.vs_control]
    if not rows:
        return tag("p", "The run holds no variant beside its base, so there is nothing to compare.", class_="note")
    names = ("n", "median [95 % CI]", "mean", "p", "Holm p", "r")
    head = [
        [
            tag("th", "Variant", rowspan=2, scope="col", class_="name"),
            tag("th", "against its base", colspan=len(names), scope="colgroup"),
            tag("th", "against its control", colspan=len(names), scope="colgroup"),
        ],
        [tag("th", name, scope="col", class_=_edge(index)) for _ in range(2) for index, name in enumerate(names)],
    ]
    body = [
        [
            tag("th", _named(each), scope="row", class_="name"),
            *_comparison_cells(each.vs_base),
            *_comparison_cells(each.vs_control),
        ]
        for each in rows
    ]
    return table(head, body, caption="Paired differences of the foreground Dice, in percentage points", class_="paired")


def _comparison_cells(comparison: Comparison | None) -> list[Markup]:
    if comparison is None or not comparison.foreground.n:
        return [
            tag("td", MISSING, class_="none edge"),
            *(tag("td", MISSING, class_="none") for _ in range(5)),
        ]
    test = comparison.foreground
    holm = tag("b", f"{p_value(test.p_holm)}*") if significant(test) else p_value(test.p_holm)
    return [
        tag("td", str(test.n), class_="edge"),
        tag("td", difference(test)),
        tag("td", signed(100 * test.mean)),
        tag("td", p_value(test.p)),
        tag("td", holm),
        tag("td", signed(test.rank_biserial, 2)),
    ]


def class_comparisons(summary: RunSummary) -> Markup:
    """Paired differences of each class against the base.

    Args:
        summary: The run, summarised.

    Returns:
        The table; empty when there is nothing to compare.
    """
    rows = [(each, each.vs_base) for each in summary.variants if each.vs_base]
    names = summary.run.class_names
    head = [
        [
            tag("th", "Variant", rowspan=2, scope="col", class_="name"),
            *(tag("th", name, colspan=2, scope="colgroup") for name in names),
        ],
        [
            tag("th", column, scope="col", class_=_edge(index))
            for _ in names
            for index, column in enumerate(("median [95 % CI]", "Holm p"))
        ],
    ]
    body = []
    for each, comparison in rows:
        cells = [tag("th", _named(each), scope="row", class_="name")]
        for name in names:
            test = comparison.classes[name]
            holm = tag("b", f"{p_value(test.p_holm)}*") if significant(test) else p_value(test.p_holm)
            cells += [tag("td", difference(test), class_="edge"), tag("td", holm)]
        body.append(cells)
    return table(head, body, caption="Differences per class against the base, in percentage points", class_="paired")


def all_variants(summary: RunSummary) -> Markup:
    """One row per variant with every number; its columns can be sorted.

    Args:
        summary: The run, summarised.

    Returns:
        The table.
    """
    columns = [
        "Variant",
        "Head",
        "Supervoxels",
        *(f"Dice {name} %" for name in summary.run.class_names),
        "Foreground %",
        "Median [IQR] %",
        "With BG %",
        *(f"HD95 {name} mm" for name in summary.run.class_names),
        *(f"|ΔV| {name} mL" for name in summary.run.class_names),
        "Oracle %",
        "K",
        "Parameters",
        "s / volume",
        "Δ base",
        "Holm p",
        "Not scored",
    ]
    head = [
        [
            tag(
                "th",
                tag("button", name, type="button"),
                scope="col",
                aria_sort="none",
                class_="name" if index == 0 else None,
                title=_COLUMN_HINTS.get(name),
            )
            for index, name in enumerate(columns)
        ]
    ]
    body = [_variant_row(each, index) for index, each in enumerate(summary.variants)]
    return table(head, body, caption="All variants, mean ± SD over the cases", class_="sortable", id="variants")


_COLUMN_HINTS = {
    "K": "Mean number of supervoxels",
    "Δ base": "Median difference of the foreground Dice to the base, in percentage points",
    "Holm p": "Against the base, corrected over all variants",
    "Not scored": "Classes of cases that the missing-value policy decided",
    "s / volume": "Seconds to segment one volume, supervoxels and pooling included",
}


def _variant_row(each: VariantSummary, index: int) -> list[Markup]:
    variant = each.variant
    test = None if each.vs_base is None else each.vs_base.foreground
    foreground = each.dice_foreground
    middle = f"{percent(foreground.median)} [{percent(foreground.q1)}, {percent(foreground.q3)}]"
    not_scored = counts_note(each)
    undecided = sum(each.total(status) for status in ("missed", "false_positive", "absent_ok"))
    return [
        tag("th", _named(each), scope="row", class_="name", data_value=index),
        tag("td", HEAD_TITLES.get(variant.head, variant.head), class_="text"),
        tag("td", SEGMENT_TITLES.get(variant.segments or "", variant.segments or MISSING), class_="text"),
        *(_sortable(value.mean, spread(value)) for value in each.dice.values()),
        _sortable(foreground.mean, spread(foreground)),
        _sortable(foreground.median, middle),
        _sortable(each.dice_with_background.mean, percent(each.dice_with_background.mean)),
        *(_millimetres(value) for value in each.hd95.values()),
        *(_sortable(value.mean, spread(value, scale=1)) for value in each.volume_error.values()),
        _sortable(each.oracle_foreground, percent(each.oracle_foreground)),
        _sortable(each.num_segments, count(each.num_segments), hint=supervoxel_note(each) or None),
        _sortable(each.parameters, count(each.parameters)),
        _sortable(each.seconds, seconds(each.seconds)),
        _sortable(None if test is None else test.median, signed(None if test is None else 100 * test.median)),
        _sortable(None if test is None else test.p_holm, MISSING if test is None else p_value(test.p_holm)),
        _sortable(undecided, not_scored or "0", hint=None),
    ]


def _millimetres(value: Summary) -> Markup:
    return _sortable(value.mean, spread(value, scale=1))


def _sortable(value: float | None, text: str, *, hint: str | None = None) -> Markup:
    known = value is not None and not math.isnan(value)
    return tag("td", text, data_value=value if known else "", title=hint)


def all_cases(summary: RunSummary) -> Markup:
    """Foreground Dice of each case under each variant.

    Args:
        summary: The run, summarised.

    Returns:
        The table, with the cases in rows.
    """
    by_variant = [{case.case_id: case for case in each.result.cases} for each in summary.variants]
    head = [
        [
            tag("th", "Case", scope="col", class_="name"),
            tag("th", "Fold", scope="col"),
            *(tag("th", title(each.variant), scope="col", class_="upright") for each in summary.variants),
        ]
    ]
    body = [
        [
            tag("th", case_id, scope="row", class_="name"),
            tag("td", str(fold)),
            *(
                tag("td", percent(cases[case_id].dice_foreground) if case_id in cases else MISSING)
                for cases in by_variant
            ),
        ]
        for fold, case_id in summary.run.held_out
    ]
    return table(head, body, caption="Foreground Dice of every case, in percent", class_="cases")


def policy() -> Markup:
    """The missing-value policy."""
    head = [[tag("th", name, scope="col", class_="text") for name in POLICY_HEAD]]
    body = [[tag("td", value, class_="text") for value in row] for row in POLICY]
    return table(head, body, caption="What counts when a class is empty", class_="plain")


def _named(each: VariantSummary) -> Markup:
    return join(title(each.variant), tag("sup", "†") if not each.result.complete else "")
