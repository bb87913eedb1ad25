"""report.html: one file that needs nothing beside itself."""

from collections.abc import Iterable
from functools import partial
from importlib import resources
from string import Template

from voxpool_pipelines.report import charts, tables
from voxpool_pipelines.report.markup import Markup, join, tag
from voxpool_pipelines.report.slices import make_gallery
from voxpool_pipelines.report.summary import RunSummary, class_dice
from voxpool_pipelines.report.table1 import measures
from voxpool_pipelines.report.texts import (
    DEFINITIONS,
    coarse_supervoxels,
    facts,
    findings,
    limitations,
    options,
)
from voxpool_pipelines.report.viewer import choice, viewer
from voxpool_pipelines.report.words import HEAD_TITLES, plural


def report_html(summary: RunSummary) -> str:
    """The report as a page with its style, script, figures and images inside.

    Args:
        summary: The run, summarised.

    Returns:
        The HTML document; the same run gives the same bytes.
    """
    run = summary.run
    values = {
        "title": tag("h1", run.name),
        "document_title": join(f"{run.name} · voxpool report"),
        "status": "" if run.complete else _unfinished(summary),
        "subtitle": tag("p", _subtitle(summary), class_="subtitle"),
        "findings": tag("ul", (tag("li", sentence) for sentence in findings(summary))),
        "table1": _table1(summary),
        "coarse": tag("p", coarse_supervoxels(summary), class_="note") if coarse_supervoxels(summary) else "",
        "comparisons": tables.comparisons(summary),
        "class_comparisons": tables.class_comparisons(summary),
        "variants": tables.all_variants(summary),
        "cases": tables.all_cases(summary),
        "legend": _legend(summary),
        "boxes": _boxes(summary),
        "scatter": charts.scatter(summary),
        "slices": viewer(summary, make_gallery(summary)),
        "policy": tables.policy(),
        "definitions": _list(DEFINITIONS),
        "facts": _list(facts(summary)),
        "options": _list(options(summary), class_="options"),
        "limitations": tag("ul", (tag("li", sentence) for sentence in limitations(summary))),
        "version": join(str(run.versions.get("voxpool", ""))),
        "style": _asset("style.css"),
        "script": _asset("page.js"),
    }
    return Template(_asset("template.html")).substitute(values)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _subtitle(summary: RunSummary) -> str:
    run = summary.run
    data = "" if run.data.name == run.name else f"{run.data.name} · "
    return (
        f"{data}{plural(run.data.cases, 'case')} · {len(run.splits)}-fold cross-validation · "
        f"{plural(len(summary.variants), 'variant')} · seed {run.seed} · {run.device}"
    )


def _unfinished(summary: RunSummary) -> Markup:
    done = sum(len(each.result.folds) for each in summary.variants)
    wanted = len(summary.variants) * len(summary.run.asked_folds)
    return tag(
        "p",
        f"This run is not finished: {done} of {wanted} folds of the variants begun so far are done. "
        "Start the same command again to go on; the report is then written anew.",
        class_="warning",
        role="status",
    )


def _table1(summary: RunSummary) -> Markup:
    """Table 1 for the main measure, and a choice of others."""
    shown = measures(summary.run.class_names)
    choices = [choice("measure", each.key, each.short, index == 0) for index, each in enumerate(shown)]
    return join(
        tag("div", choices, class_="choices", role="radiogroup", aria_label="Measure in the table"),
        (
            tag("div", tables.table1(summary, each), data_measure=each.key, hidden=index > 0)
            for index, each in enumerate(shown)
        ),
    )


def _legend(summary: RunSummary) -> Markup:
    present = {each.variant.head for each in summary.variants}
    heads = [head for head in HEAD_TITLES if head in present]
    kinds = dict.fromkeys(each.variant.segments for each in summary.variants)
    shapes = {
        "slic": tag("circle", cx=8, cy=8, r=5.5),
        "block": tag("rect", x=3, y=3, width=10, height=10),
        None: tag("path", d="M8 1.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z"),
    }
    names = {"slic": "SLIC", "block": "BLOCK", None: "no supervoxels"}
    return tag(
        "ul",
        (tag("li", tag("span", class_=f"swatch head-{head}"), HEAD_TITLES[head]) for head in heads),
        (
            tag("li", tag("svg", shapes[kind], viewBox="0 0 16 16", aria_hidden="true"), names[kind])
            for kind in kinds
            if kind in shapes
        ),
        class_="legend",
        aria_label="Legend of the figures",
    )


def _boxes(summary: RunSummary) -> Markup:
    return tag(
        "div",
        charts.box_plots(summary, "foreground mean", lambda case: case.dice_foreground),
        (charts.box_plots(summary, name, partial(class_dice, name)) for name in summary.run.class_names),
        class_="panels",
    )


def _list(pairs: Iterable[tuple[str, str]], *, class_: str | None = None) -> Markup:
    return tag("dl", (tag("div", tag("dt", term), tag("dd", text)) for term, text in pairs), class_=class_)
