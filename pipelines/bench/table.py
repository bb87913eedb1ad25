"""The measured times of one case as a table for the terminal."""

import math
from typing import Any

from rich.table import Table

FLOORS = {"forward": "floor: read", "forward+backward": "floor: read, write fresh"}
# Above this share of the processor's time the page says that other programs ran.
_MUCH_OTHER_WORK = 0.05


def case_table(case: dict[str, Any]) -> Table:
    """Lay out a case.

    Args:
        case: What `measure_case` gives.

    Returns:
        A table: per reduction and pass the floor, then the methods, the fastest first.
    """
    table = Table(
        title=case["title"], title_justify="left", title_style="bold", caption_style="", caption_justify="left"
    )
    table.add_column("method", no_wrap=True)
    for name in ("ms", "from", "to", "x floor", "GB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.caption = "\n".join(_notes(case))
    for reduce in ("max", "mean"):
        for which, floor in case["floors"].items():
            rows = [row for row in case["rows"] if (row["reduce"], row["pass"]) == (reduce, which)]
            rows.sort(key=lambda row: row["ms"])
            table.add_section()
            table.add_row(f"{reduce}, {which}", style="bold")
            table.add_row(_name(FLOORS[which], floor), *_numbers(floor | {"ratio": 1.0}), style="dim")
            for row in rows:
                table.add_row(_name(row["method"], row), *_numbers(row))
    return table


def _notes(case: dict[str, Any]) -> list[str]:
    notes = sorted({f"{row['method']}: {row['note']}" for row in case["rows"] if row["note"]})
    if not all(row["clean"] for row in [*case["rows"], *case["floors"].values()]):
        notes.append("~: too few undisturbed samples, the faster half of all")
    if case["other_work"] > _MUCH_OTHER_WORK:
        notes.append(f"other programs took {100 * case['other_work']:.0f} % of the processor")
    return notes


def _numbers(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_short(row[key]) for key in ("ms", "low_ms", "high_ms", "ratio", "gb_per_s"))


def _short(value: float) -> str:
    """Three digits or a few more: 0.123, 1.23, 12.3, 1234."""
    return f"{value:.{max(0, min(3, 2 - math.floor(math.log10(value))))}f}"


def _name(name: str, row: dict[str, Any]) -> str:
    return name if row["clean"] else f"{name} ~"
