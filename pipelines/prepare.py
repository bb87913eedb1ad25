"""From what the user named to a checked data set with folds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from voxpool.data import (
    Dataset,
    Fold,
    check_dataset,
    find_dataset,
    make_folds,
    read_folds,
    render_findings,
    write_folds,
)
from voxpool.data.folds import check_folds
from voxpool.errors import InputError
from voxpool.io import read_geometry

SPACING_TOLERANCE = 0.02


def open_dataset(
    data: Path,
    *,
    layout: str,
    image: Sequence[str] | None,
    labels: str | None,
    label_names: str | None,
    console: Console,
) -> Dataset:
    """The cases with labels of the data set that a user named, for training.

    Args:
        data: Folder, manifest or dataset.json.
        layout: As in `voxpool.data.find_dataset`, like `image`, `labels` and `label_names`.
        image: Patterns of the images.
        labels: Pattern of the label maps.
        label_names: Names of the label values, or None.
        console: Where the name, number of cases and convention are shown.

    Returns:
        The data set without its unlabelled cases.

    Raises:
        InputError: If nothing is found, no case has labels, or class ids leave a gap.
    """
    dataset = find_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names)
    ids = sorted(dataset.label_names)
    if ids != list(range(len(ids))) or len(ids) < 2:
        raise InputError(
            f"{dataset.name} has the label values {_shortened(ids)}; networks need 0, 1, 2, ... without a gap:"
            " renumber the label maps"
        )
    cases = tuple(case for case in dataset.cases if case.labels is not None)
    if not cases:
        raise InputError(f"{dataset.name} has no case with labels; name their files with --labels")
    console.print(
        f"{dataset.name}: {len(cases)} cases; labels {dataset.convention}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return replace(dataset, cases=cases)


def _shortened(values: Sequence[int]) -> str:
    text = ", ".join(str(value) for value in values[:6])
    return f"{text}, ..." if len(values) > 6 else text


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
        console.print(line, highlight=False, markup=False, soft_wrap=True)
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
