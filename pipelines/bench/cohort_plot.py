"""The picture of `voxpool bench cohort`: scans done over time, and the driver's memory over scans done."""

from typing import Any

from voxpool_pipelines.report.charts import Axis, linear_axis
from voxpool_pipelines.report.markup import Markup, join, tag

_COLOURS = {"serial": "#c2410c", "dask": "#0b5fa5"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _FOOT = 420, 280, 60, 34, 20, 44
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2937}.title{font-weight:600}.tick{font-size:10px}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#e5e7eb}polyline{fill:none;stroke-width:1.8}"
)

Line = tuple[str, list[tuple[float, float]]]


def draw_cohort(measured: dict[str, Any]) -> str:
    """Draw what `run_bench_cohort` measured.

    Args:
        measured: What it returns.

    Returns:
        An SVG document.
    """
    done = [(run["engine"], [(s, n) for s, n, _ in run["samples"]]) for run in measured["runs"]]
    memory = [
        (run["engine"], [(n, mb) for _, n, mb in run["samples"] if n]) for run in measured["runs"] if run["samples"]
    ]
    legend = join(
        join(
            tag("line", x1=_LEFT, x2=_LEFT + 24, y1=y - 4, y2=y - 4, stroke=_COLOURS[engine], stroke_width=3),
            tag("text", text, x=_LEFT + 32, y=y),
        )
        for y, engine, text in (
            (_HEIGHT + 14, "serial", f"one process, {measured['seconds']['serial']:.0f} s"),
            (
                _HEIGHT + 32,
                "dask",
                f"{measured['workers']} processes, {measured['seconds']['dask']:.0f} s:"
                f" {measured['speedup']:.2f} times the scans per second",
            ),
        )
    )
    svg = tag(
        "svg",
        tag("style", Markup(_STYLE)),
        tag("rect", width=2 * _WIDTH, height=_HEIGHT + 44, fill="white"),
        _panel("scans done", "seconds", done),
        tag("g", _panel("memory of the driver: MB", "scans done", memory), transform=f"translate({_WIDTH},0)"),
        legend,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {2 * _WIDTH} {_HEIGHT + 44}",
        role="img",
        aria_label="Scans done over time, and memory of the driver over scans done, by one process and by several",
    )
    return f"{svg}\n"


def _panel(title: str, unit: str, lines: list[Line]) -> Markup:
    points = [point for _, line in lines for point in line]
    across = linear_axis([0.0, *(x for x, _ in points)], _LEFT, _WIDTH - _RIGHT)
    upward = linear_axis([0.0, *(y for _, y in points)], _HEIGHT - _FOOT, _TOP)
    return join(
        tag("text", title, x=_LEFT, y=_TOP - 14, class_="title"),
        tag("text", unit, x=_WIDTH / 2, y=_HEIGHT - 10, class_="middle"),
        _grid(across, upward),
        (
            tag(
                "polyline",
                points=" ".join(f"{across(x):.1f},{upward(y):.1f}" for x, y in line),
                stroke=_COLOURS[engine],
            )
            for engine, line in lines
        ),
    )


def _grid(across: Axis, upward: Axis) -> Markup:
    bottom = _HEIGHT - _FOOT
    return join(
        (tag("text", f"{t:g}", x=f"{across(t):.1f}", y=bottom + 14, class_="tick middle") for t in across.ticks),
        (
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{upward(t):.1f}", y2=f"{upward(t):.1f}", class_="grid")
            for t in upward.ticks
        ),
        (tag("text", f"{t:g}", x=_LEFT - 6, y=f"{upward(t) + 4:.1f}", class_="tick end") for t in upward.ticks),
    )
