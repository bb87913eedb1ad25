"""report.md: the report in plain text, for a repository or a mail."""

from collections.abc import Iterable, Sequence

from voxpool_pipelines.report.summary import Comparison, RunSummary
from voxpool_pipelines.report.table1 import Cell, Measure, lay_out, measures, significant
from voxpool_pipelines.report.texts import (
    DEFINITIONS,
    POLICY,
    POLICY_HEAD,
    coarse_supervoxels,
    counts_note,
    difference,
    facts,
    findings,
    limitations,
    options,
)
from voxpool_pipelines.report.words import (
    MISSING,
    SEGMENT_TITLES,
    count,
    number,
    p_value,
    percent,
    plural,
    seconds,
    signed,
    spread,
    title,
)


def report_markdown(summary: RunSummary) -> str:
    """The report as Markdown.

    Args:
        summary: The run, summarised.

    Returns:
        The document.
    """
    run = summary.run
    shown = measures(run.class_names)
    parts = [
        f"# {_safe(run.name)}",
        f"{len(run.asked_folds)} of {len(run.splits)} folds, {plural(len(run.held_out), 'case')}, "
        f"{plural(len(summary.variants), 'variant')}." + ("" if run.complete else " **This run is not finished.**"),
        bullets(findings(summary)),
        "## Heads by network and supervoxels",
        "Mean ± SD over all held-out cases; bold: best of its network; in brackets: median paired difference "
        "to the base in points, * for Holm p < 0.05.",
    ]
    for measure in shown:
        parts += [f"### {measure.title}", _table1(summary, measure)]
    if note := coarse_supervoxels(summary):
        parts.append(note)
    parts += [
        "## Paired comparison",
        "Differences of the foreground Dice in percentage points: median [95 % CI], Holm p, rank-biserial r.",
        _comparisons(summary),
        "## All variants",
        _variants(summary),
        "## Metrics and tests",
        markdown_table(POLICY_HEAD, POLICY),
        bullets(f"**{term}:** {text}" for term, text in DEFINITIONS),
        "## Data and run",
        bullets(f"**{_safe(term)}:** {_safe(text)}" for term, text in facts(summary)),
        "### Options",
        markdown_table(["Option", "Value"], options(summary)),
        "## Limitations",
        bullets(limitations(summary)),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right.

    Args:
        head: Titles of the columns.
        rows: Cells; vertical bars in them are escaped.

    Returns:
        The table.
    """
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)


def bullets(sentences: Iterable[str]) -> str:
    """A Markdown list.

    Args:
        sentences: The items.

    Returns:
        The list.
    """
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _safe(text: str) -> str:
    """Line breaks and vertical bars would end a cell, angle brackets would start HTML."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def _table1(summary: RunSummary, measure: Measure) -> str:
    layout = lay_out(summary, measure)
    head = [
        "",
        *(
            f"{group.title} {SEGMENT_TITLES.get(kind or '', '')}".strip()
            for group in layout.groups
            for kind in group.segments
        ),
    ]
    rows = []
    for name, cells in layout.rows:
        row = [name]
        for cell in cells:
            if cell is None:
                row.append(MISSING)
            else:
                # Markdown has no spanning cells: a value that holds for several columns stands in each.
                row += [_cell(cell, measure)] * cell.columns
        rows.append(row)
    if measure.oracle is not None and any(layout.oracle):
        rows.append(
            [
                "Oracle",
                *(MISSING if cell is None else percent(measure.oracle(cell.summary)) for cell in layout.oracle),
            ]
        )
    return markdown_table(head, rows)


def _cell(cell: Cell, measure: Measure) -> str:
    text = spread(measure.value(cell.summary), scale=measure.scale)
    text = f"**{text}**" if cell.best else text
    comparison = cell.summary.vs_base
    if comparison is not None and measure.test is not None and (test := measure.test(comparison)).n:
        text += f" ({signed(100 * test.median)}{'*' if significant(test) else ''})"
    return text + ("†" if cell.partial else "")


def _comparisons(summary: RunSummary) -> str:
    rows = [
        [title(each.variant), *_comparison(each.vs_base), *_comparison(each.vs_control)]
        for each in summary.variants
        if each.vs_base or each.vs_control
    ]
    if not rows:
        return "The run holds no variant beside its base, so there is nothing to compare."
    return markdown_table(["Variant", "n", "vs base", "Holm p", "r", "n", "vs control", "Holm p", "r"], rows)


def _comparison(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return [MISSING] * 4
    test = comparison.foreground
    star = "*" if significant(test) else ""
    return [str(test.n), difference(test), p_value(test.p_holm) + star, signed(test.rank_biserial, 2)]


def _variants(summary: RunSummary) -> str:
    names = summary.run.class_names
    head = [
        "Variant",
        *(f"Dice {name} %" for name in names),
        "Foreground %",
        "With BG %",
        "HD95 mm",
        "Oracle %",
        "K",
        "Parameters",
        "s / volume",
        "Not scored",
    ]
    rows = [
        [
            title(each.variant) + ("" if each.result.complete else "†"),
            *(spread(each.dice[name]) for name in names),
            spread(each.dice_foreground),
            percent(each.dice_with_background.mean),
            number(each.hd95_foreground.mean),
            percent(each.oracle_foreground),
            count(each.num_segments),
            count(each.parameters),
            seconds(each.seconds),
            counts_note(each) or "0",
        ]
        for each in summary.variants
    ]
    return markdown_table(head, rows)
