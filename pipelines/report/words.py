"""How the report names variants and writes numbers."""

import math

from voxpool_pipelines.results import Variant
from voxpool_pipelines.statistics import Summary

NET_TITLES = {"voxresnet": "VoxResNet", "segresnet": "SegResNet"}
HEAD_TITLES = {
    "base": "Base",
    "control": "Control",
    "v1": "V1",
    "v2": "V2",
    "v3": "V3",
    "v3stats": "V3 statistics",
    "v3nested": "V3 nested",
}
SEGMENT_TITLES = {"block": "BLOCK", "slic": "SLIC"}
STATUS_TITLES = {
    "ok": "scored",
    "missed": "missed",
    "false_positive": "false positive",
    "absent_ok": "absent",
}
MISSING = "–"
SIGNIFICANT = 0.05


def net_title(variant: Variant) -> str:
    """Name of a network as readers know it."""
    return NET_TITLES.get(variant.net, variant.net)


def group_title(variant: Variant) -> str:
    """Network and reduction, such as `VoxResNet /8`."""
    if variant.reduction is None:
        return net_title(variant)
    return f"{net_title(variant)} {'full' if variant.reduction == 1 else f'/{variant.reduction}'}"


def head_title(variant: Variant) -> str:
    """Head and supervoxels, such as `V3 SLIC`."""
    head = HEAD_TITLES.get(variant.head, variant.head)
    if variant.segments is None:
        return head
    return f"{head} {SEGMENT_TITLES.get(variant.segments, variant.segments)}"


def title(variant: Variant) -> str:
    """The whole variant, such as `VoxResNet /8 · V3 SLIC`."""
    return f"{group_title(variant)} · {head_title(variant)}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with fixed digits, or a dash for a value that does not exist."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A Dice value in percent, without the sign."""
    return number(None if value is None else 100 * value, digits)


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign, `±0.0` for one that rounds to nothing."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:+.{digits}f}"
    return f"±{text[1:]}" if float(text) == 0 else text.replace("-", "−")


def spread(summary: Summary, *, scale: float = 100, digits: int = 1) -> str:
    """Mean ± SD."""
    if not summary.n:
        return MISSING
    mean = number(scale * summary.mean, digits)
    return mean if math.isnan(summary.sd) else f"{mean} ± {number(scale * summary.sd, digits)}"


def p_value(p: float) -> str:
    """A p-value, never a bare zero."""
    if math.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{round(value):,}".replace(",", "\u202f")


def seconds(value: float | None) -> str:
    """A duration in seconds with about three significant digits."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """A count with its noun."""
    return f"{n} {noun if n == 1 else many or noun + 's'}"
