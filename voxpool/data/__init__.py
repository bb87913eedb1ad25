"""Data sets: finding them, checking them, splitting them into folds, preparing them for a network.

Names are loaded on first use, so finding and checking data needs neither torch nor MONAI.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Case": "cases",
    "Dataset": "cases",
    "Finding": "cases",
    "Fold": "folds",
    "check_dataset": "check",
    "check_folds": "folds",
    "find_dataset": "layouts",
    "make_folds": "folds",
    "read_folds": "folds",
    "render_findings": "check",
    "write_folds": "folds",
}

__all__ = [
    "Case",
    "Dataset",
    "Finding",
    "Fold",
    "check_dataset",
    "check_folds",
    "find_dataset",
    "make_folds",
    "read_folds",
    "render_findings",
    "write_folds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'voxpool.data' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
