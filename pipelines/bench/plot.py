"""The paper's Figure 3 with our peers: time over the number of voxels and of supervoxels, as one SVG file."""

from collections.abc import Sequence
from typing import Any

from voxpool_pipelines.report.charts import Axis, log_axis
from voxpool_pipelines.report.markup import Markup, join, tag

_COLOURS = ("#0b5fa5", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#be185d")
_FLOOR_COLOUR = "#6b7280"
_AXES = {"voxels": "voxels P", "segments": "supervoxels K"}
_KEYS = {"voxels": "voxels", "segments": "num_segments"}
_PANELS = tuple((reduce, which) for reduce in ("max", "mean") for which in ("forward", "forward+backward"))
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT = 400, 260, 64, 30, 26
_FOOT, _LINE, _CROWD = 44, 18, 6
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2937}.title{font-weight:600}.tick{font-size:10px}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#e5e7eb}"
    "polyline{fill:none;stroke-width:1.8}.floor{stroke-dasharray:5 3}"
)

Line = tuple[str, list[tuple[float, float]]]


def draw_sweeps(sweeps: dict[str, list[dict[str, Any]]]) -> str:
    """Draw times over voxels and over supervoxels, both axes logarithmic.

    Args:
        sweeps: Measured cases, by what grows: "voxels" or "segments".

    Returns:
        An SVG document: a column per sweep, a row per reduction and pass.
    """
    columns = list(sweeps)
    names = list(dict.fromkeys(row["method"] for cases in sweeps.values() for case in cases for row in case["rows"]))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    panels = []
    for r, (reduce, which) in enumerate(_PANELS):
        for c, over in enumerate(columns):
            lines = _lines(sweeps[over], _KEYS[over], reduce, which)
            panel = _panel(f"{reduce}, {which}", _AXES[over], lines, colours)
            panels.append(tag("g", panel, transform=f"translate({c * _WIDTH},{r * _HEIGHT})"))
    width, height = _WIDTH * len(columns), _HEIGHT * len(_PANELS)
    legend = _legend(colours, height)
    svg = tag(
        "svg",
        tag("style", Markup(_STYLE)),
        tag("rect", width=width, height=height + _LINE * (len(names) + 2), fill="white"),
        *panels,
        legend,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height + _LINE * (len(names) + 2)}",
        role="img",
        aria_label="Time of pooling over the number of voxels and of supervoxels; the values are in the JSON file",
    )
    return f"{svg}\n"


def _lines(cases: Sequence[dict[str, Any]], key: str, reduce: str, which: str) -> list[Line]:
    """The floor and one line per method: (name, points); the floor has no name."""
    lines: dict[str, list[tuple[float, float]]] = {"": []}
    for case in cases:
        lines[""].append((case[key], case["floors"][which]["ms"]))
        for row in case["rows"]:
            if (row["reduce"], row["pass"]) == (reduce, which):
                lines.setdefault(row["method"], []).append((case[key], row["ms"]))
    return list(lines.items())


def _panel(title: str, unit: str, lines: list[Line], colours: dict[str, str]) -> Markup:
    points = [point for _, line in lines for point in line]
    across = log_axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    upward = log_axis([y for _, y in points], _HEIGHT - _FOOT, _TOP)
    return join(
        tag("text", f"{title}: ms", x=_LEFT, y=_TOP - 12, class_="title"),
        tag("text", unit, x=_WIDTH / 2, y=_HEIGHT - 10, class_="middle"),
        _grid(across, upward),
        (_curve(name, line, across, upward, colours) for name, line in lines),
    )


def _grid(across: Axis, upward: Axis) -> Markup:
    bottom = _HEIGHT - _FOOT
    columns, rows = _few(across.ticks), _few(upward.ticks)
    return join(
        (tag("line", x1=_f(across(t)), x2=_f(across(t)), y1=_TOP, y2=bottom, class_="grid") for t in columns),
        (tag("text", f"{t:,.0f}", x=_f(across(t)), y=bottom + 14, class_="tick middle") for t in columns),
        (tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_f(upward(t)), y2=_f(upward(t)), class_="grid") for t in rows),
        (tag("text", f"{t:g}", x=_LEFT - 6, y=_f(upward(t) + 4), class_="tick end") for t in rows),
    )


def _few(ticks: Sequence[float]) -> list[float]:
    """The decades alone where all ticks would be a crowd."""
    decades = [tick for tick in ticks if f"{tick:e}".startswith("1.000")]
    return decades if len(ticks) > _CROWD and decades else list(ticks)


def _curve(name: str, line: list[tuple[float, float]], across: Axis, upward: Axis, colours: dict[str, str]) -> Markup:
    colour = colours.get(name, _FLOOR_COLOUR)
    places = [(_f(across(x)), _f(upward(y))) for x, y in line]
    path = tag(
        "polyline", points=" ".join(f"{x},{y}" for x, y in places), stroke=colour, class_=None if name else "floor"
    )
    dots = (
        tag("circle", tag("title", f"{name or 'floor'}: {y:.3g} ms at {x:,}"), cx=px, cy=py, r=2.6, fill=colour)
        for (px, py), (x, y) in zip(places, line, strict=True)
    )
    return join(path, dots)


def _legend(colours: dict[str, str], top: int) -> Markup:
    entries = [("floor: read the map once; with backward, write a fresh one too", _FLOOR_COLOUR), *colours.items()]
    return join(
        join(
            tag("line", x1=_LEFT, x2=_LEFT + 24, y1=y - 4, y2=y - 4, stroke=colour, stroke_width=3),
            tag("text", name, x=_LEFT + 32, y=y),
        )
        for y, (name, colour) in ((top + _LINE * (index + 1), entry) for index, entry in enumerate(entries))
    )


def _f(position: float) -> str:
    return f"{position:.1f}"
