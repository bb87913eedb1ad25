"""The report's figures as inline SVG: box plots per class, and Dice against inference time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from voxpool_pipelines.report.markup import Markup, join, tag
from voxpool_pipelines.report.summary import RunSummary, VariantSummary
from voxpool_pipelines.report.words import group_title, head_title, number, percent, seconds, spread, title
from voxpool_pipelines.results import CaseResult

ROW = 22
# Above this many, single cases would make the page heavy and the plot a smear: only outliers keep their dot.
DOT_LIMIT = 12_000


@dataclass(frozen=True)
class Axis:
    """A straight or logarithmic mapping from values to positions, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear_axis(values: Sequence[float], start: float, end: float, *, count: int = 6) -> Axis:
    """An axis whose ends are round ticks around the values.

    Args:
        values: What must fit.
        start: Position of the lowest tick.
        end: Position of the highest tick.
        count: About how many ticks there should be.

    Returns:
        The axis.
    """
    low, high = min(values), max(values)
    rough = max(high - low, 1e-6 * max(abs(high), 1.0)) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(round(index * step, 9) for index in range(first, max(last, first + 1) + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 of each decade.

    Args:
        values: What must fit; positive.
        start: Position of the low end.
        end: Position of the high end.

    Returns:
        The axis, a little wider than the values.
    """
    low, high = min(values) / 1.25, max(values) * 1.25
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    return Axis(low, high, start, end, tuple(tick for tick in ticks if low <= tick <= high), True)


def box_plots(summary: RunSummary, name: str, value: Callable[[CaseResult], float]) -> Markup:
    """Box plots of one score, one box per variant and one dot per case.

    Args:
        summary: The run, summarised.
        name: What is plotted, such as `GM`.
        value: The Dice of a case.

    Returns:
        A figure: boxes are quartiles, whiskers reach the last case within 1.5 interquartile ranges, and the
        dashed line is the median of the base.
    """
    shown = [
        (each, [(case, value(case)) for case in each.result.cases if not math.isnan(value(case))])
        for each in summary.variants
    ]
    shown = [(each, cases) for each, cases in shown if cases]
    groups = list(dict.fromkeys(group_title(each.variant) for each, _ in shown))
    left, width = 96, 560
    height = (len(shown) + len(groups)) * ROW + 34
    axis = linear_axis([100 * score for _, cases in shown for _, score in cases], left, width - 14)
    every_dot = sum(len(cases) for _, cases in shown) <= DOT_LIMIT
    parts: list[Markup] = [_vertical_grid(axis, 6, height - 26, height - 10)]
    y = 4.0
    for group in groups:
        parts.append(tag("text", group, x=0, y=y + 14, class_="group"))
        y += ROW
        members = [(each, cases) for each, cases in shown if group_title(each.variant) == group]
        base = next((cases for each, cases in members if each.variant.head == "base"), None)
        if base is not None:
            x = _f(axis(100 * float(np.median([score for _, score in base]))))
            parts.append(tag("line", x1=x, x2=x, y1=_f(y), y2=_f(y + ROW * len(members)), class_="reference"))
        for each, cases in members:
            parts.append(tag("text", head_title(each.variant), x=left - 10, y=_f(y + 15), class_="row"))
            parts.append(_box(each, cases, axis, y + ROW / 2, every_dot))
            y += ROW
    return _figure(
        f"Dice, {name} (%)",
        tag(
            "svg",
            parts,
            viewBox=f"0 0 {width} {height}",
            role="img",
            aria_label=f"Box plots of the {name} Dice of {len(shown)} variants; "
            "medians and quartiles are in the table of all variants",
        ),
    )


def _box(each: VariantSummary, cases: list[tuple[CaseResult, float]], axis: Axis, y: float, every_dot: bool) -> Markup:
    scores = np.array([100 * score for _, score in cases])
    q1, median, q3 = np.quantile(scores, [0.25, 0.5, 0.75])
    reach = 1.5 * (q3 - q1)
    inside = scores[(scores >= q1 - reach) & (scores <= q3 + reach)]
    low, high = inside.min(), inside.max()
    label = (
        f"{title(each.variant)}\nmedian {number(median)} %, quartiles {number(q1)} to {number(q3)} %, n = {len(scores)}"
    )
    half = 6.5
    dots = []
    for index, (case, score) in enumerate(cases):
        outlier = not low <= 100 * score <= high
        if every_dot or outlier:
            # The golden ratio spreads neighbours in the list as far apart as can be, the same way every time.
            offset = (((index + 1) * 0.618034) % 1 - 0.5) * 2 * (half - 1.5)
            dots.append(
                tag(
                    "circle",
                    tag("title", f"{case.case_id}: {percent(score, 2)} % (fold {case.fold})"),
                    cx=_f(axis(100 * score)),
                    cy=_f(y + offset),
                    r=2.2,
                    class_="dot outlier" if outlier else "dot",
                )
            )
    return tag(
        "g",
        tag("line", x1=_f(axis(low)), x2=_f(axis(high)), y1=_f(y), y2=_f(y), class_="whisker"),
        tag(
            "rect",
            tag("title", label),
            x=_f(axis(q1)),
            y=_f(y - half),
            width=_f(max(axis(q3) - axis(q1), 1)),
            height=2 * half,
            rx=2,
            class_="box",
        ),
        tag(
            "line",
            x1=_f(axis(median)),
            x2=_f(axis(median)),
            y1=_f(y - half),
            y2=_f(y + half),
            class_="median",
        ),
        dots,
        class_=f"head-{each.variant.head} segments-{each.variant.segments}",
    )


def scatter(summary: RunSummary) -> Markup:
    """Mean foreground Dice against mean seconds per volume, as the paper's Figure 8.

    Args:
        summary: The run, summarised.

    Returns:
        A figure with a logarithmic time axis and one labelled mark per variant.
    """
    shown = [each for each in summary.variants if each.seconds > 0 and each.dice_foreground.n]
    if not shown:
        return tag("p", "No inference time was recorded.", class_="note")
    width, height, left, bottom = 860, 460, 52, 44
    x_axis = log_axis([each.seconds for each in shown], left, width - 20)
    y_axis = linear_axis([100 * each.dice_foreground.mean for each in shown], height - bottom, 14)
    points = [(x_axis(each.seconds), y_axis(100 * each.dice_foreground.mean)) for each in shown]
    labels = [_short_title(each, summary) for each in shown]
    parts = [
        _vertical_grid(x_axis, 14, height - bottom, height - bottom + 17),
        _horizontal_grid(y_axis, left, width - 20),
        tag(
            "text",
            "seconds per volume (logarithmic)",
            x=_f((left + width) / 2),
            y=height - 4,
            class_="axis-title",
        ),
        *_group_lines(shown, points),
    ]
    for each, (x, y), place in zip(shown, points, _place_labels(points, labels, width - 4), strict=True):
        parts.append(_mark(each, x, y))
        if place is not None:
            parts.append(tag("text", place[0], x=_f(place[1]), y=_f(place[2]), class_="point-label"))
    return _figure(
        "Foreground Dice (%) against inference time",
        tag(
            "svg",
            parts,
            viewBox=f"0 0 {width} {height}",
            role="img",
            aria_label="Mean foreground Dice against mean seconds per volume of each variant; "
            "both are columns in the table of all variants",
        ),
    )


def _mark(each: VariantSummary, x: float, y: float) -> Markup:
    """Circle for SLIC, square for BLOCK, diamond without supervoxels."""
    if each.variant.segments == "slic":
        shape = tag("circle", cx=_f(x), cy=_f(y), r=6)
    elif each.variant.segments is None:
        shape = tag("path", d=f"M{_f(x)} {_f(y - 7.5)}l7.5 7.5l-7.5 7.5l-7.5 -7.5z")
    else:
        shape = tag("rect", x=_f(x - 5.5), y=_f(y - 5.5), width=11, height=11)
    tip = (
        f"{title(each.variant)}\nDice {spread(each.dice_foreground)} %\n"
        f"{seconds(each.seconds)} s per volume, {each.parameters:,} parameters"
    )
    return tag(
        "g",
        tag("title", tip),
        shape,
        class_=f"point head-{each.variant.head} segments-{each.variant.segments}",
    )


def _group_lines(shown: list[VariantSummary], points: list[tuple[float, float]]) -> list[Markup]:
    """A thin line from each base to what was made of it."""
    lines = []
    for each, (x, y) in zip(shown, points, strict=True):
        for other, (base_x, base_y) in zip(shown, points, strict=True):
            same = group_title(other.variant) == group_title(each.variant)
            if same and other.variant.head == "base" and each is not other:
                lines.append(tag("line", x1=_f(base_x), y1=_f(base_y), x2=_f(x), y2=_f(y), class_="tie"))
    return lines


def _place_labels(
    points: list[tuple[float, float]], labels: list[str], right_edge: float
) -> list[tuple[str, float, float] | None]:
    """Put each label right, left, above or below its mark where it hits nothing, else leave it out."""
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    placed: list[tuple[str, float, float] | None] = []
    for (x, y), text in zip(points, labels, strict=True):
        length = 6.3 * len(text)
        options = [
            (x + 11, y + 4),
            (x - 11 - length, y + 4),
            (x - length / 2, y - 12),
            (x - length / 2, y + 20),
        ]
        boxes = [(left, base - 10, left + length, base + 3) for left, base in options]
        free = [
            (option, box)
            for option, box in zip(options, boxes, strict=True)
            if box[2] < right_edge and box[0] > 50 and box[1] > 2 and not any(_overlap(box, other) for other in taken)
        ]
        if free:
            option, box = free[0]
            taken.append(box)
            placed.append((text, *option))
        else:
            placed.append(None)
    return placed


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short_title(each: VariantSummary, summary: RunSummary) -> str:
    """Head, supervoxels and reduction; the network is named only where the reduction leaves it open."""
    reduced = {other.variant.net for other in summary.variants if other.variant.reduction is not None}
    group = group_title(each.variant)
    short = each.variant.reduction is not None and len(reduced) == 1
    return f"{head_title(each.variant)} {group.split()[-1] if short else group}"


def _vertical_grid(axis: Axis, top: float, bottom: float, label_y: float) -> Markup:
    return join(
        (
            tag("line", x1=_f(axis(tick)), x2=_f(axis(tick)), y1=_f(top), y2=_f(bottom), class_="grid"),
            tag("text", f"{tick:g}", x=_f(axis(tick)), y=_f(label_y), class_="tick middle"),
        )
        for tick in axis.ticks
    )


def _horizontal_grid(axis: Axis, left: float, right: float) -> Markup:
    return join(
        (
            tag("line", x1=_f(left), x2=_f(right), y1=_f(axis(tick)), y2=_f(axis(tick)), class_="grid"),
            tag("text", f"{tick:g}", x=_f(left - 8), y=_f(axis(tick) + 4), class_="tick end"),
        )
        for tick in axis.ticks
    )


def _figure(caption: str, content: Markup) -> Markup:
    return tag("figure", tag("figcaption", caption), content, class_="chart")


def _f(position: float) -> str:
    return f"{position:.1f}"
