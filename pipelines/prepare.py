"""From what the user named to a checked data set with folds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from voxpool.data import Dataset, Fold, check_dataset, make_folds, read_folds, render_findings, write_folds
from voxpool.data.folds import check_folds
from voxpool.errors import InputError
from voxpool.io import read_geometry

SPACING_TOLERANCE = 0.02


def prepare_folds(
    dataset: Dataset, *, folds: int, seed: int, group_by_subject: bool, given: Path | None, out: Path | None
) -> list[Fold]:
    """The splits: those of a file, those that an interrupted run stored, or new ones.

    Args:
        dataset: What to split.
        folds: Number of folds.
        seed: Seed of the split.
        group_by_subject: Whether the cases of a subject stay together.
        given: A `folds.json` of the user's.
        out: Run folder, where `folds.json` is kept.

    Returns:
        The splits.

    Raises:
        InputError: If they do not fit the data set.
    """
    stored = out / "folds.json" if out else None
    if given is not None:
        splits = read_folds(given)
    elif stored and stored.exists():
        splits = read_folds(stored)
    else:
        splits = make_folds(dataset.cases, folds, seed=seed, group_by="subject" if group_by_subject else None)
    check_folds(splits, dataset.cases)
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_folds(stored, splits)
    return splits


def require_sound(dataset: Dataset, folds: Sequence[Fold] | None, console: Console) -> None:
    """Check a data set and show what was found.

    Raises:
        InputError: If there is an error in it.
    """
    with_progress = check_dataset(dataset, folds=folds)
    errors = [finding for finding in with_progress if finding.level == "error"]
    for line in render_findings([finding for finding in with_progress if finding.level != "info"]):
        console.print(line, highlight=False, markup=False)
    if errors:
        raise InputError(
            f"{dataset.name} has {len(errors)} error(s), the first: {errors[0].message};"
            " mend them, or leave those cases out"
        )


def working_spacing(
    dataset: Dataset, wanted: tuple[float, float, float] | Literal["auto", "native"]
) -> tuple[float, float, float] | None:
    """Voxel size to work at, in mm per RAS axis; None for each volume's own.

    "auto" keeps the volumes as they are where their spacings agree within 2 %, else takes the median.
    """
    if wanted == "native":
        return None
    if wanted != "auto":
        return wanted
    spacings = np.array([read_geometry(case.images[0]).ras().spacing for case in dataset.cases])
    median = np.median(spacings, axis=0)
    if np.all(np.abs(spacings - median) <= SPACING_TOLERANCE * median):
        return None
    first, second, third = (round(float(mm), 4) for mm in median)
    return first, second, third


def channel_names(dataset: Dataset) -> tuple[str, ...]:
    """Names of the image channels."""
    count = len(dataset.cases[0].images)
    return ("image",) if count == 1 else tuple(f"image{number}" for number in range(count))
