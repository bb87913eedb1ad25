"""Scores of a network for images on labelled images: one confusion matrix, Cityscapes' own scores, times."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from voxpool.crf import CRFSettings
from voxpool.data2d import ImageCase, ImageDataset
from voxpool.data2d.classes import IGNORED
from voxpool.engine import Amp, to_device
from voxpool.errors import InputError
from voxpool.inference import select_device
from voxpool.inference2d import label_image
from voxpool.io import write_json
from voxpool.io.image import read_image, read_label_image, write_label_image
from voxpool.metrics2d import CityscapesScores, confusion_matrix, score_matrix
from voxpool.model_package import PlanarInfo, load_planar_package
from voxpool_pipelines.console import clock, task


def evaluate_cases(
    net: nn.Module,
    info: PlanarInfo,
    dataset: ImageDataset,
    cases: Sequence[ImageCase],
    *,
    console: Console,
    title: str,
    amp: Amp = "auto",
    crf: CRFSettings | None = None,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Label images and score the labels at the images' own size.

    Args:
        net: Network in evaluation mode, on its device.
        info: Its description.
        dataset: Where the images come from.
        cases: The images.
        console: Where progress is shown.
        title: What the progress is called.
        amp: As in `label_image`.
        crf: As in `label_image`.
        predictions: Folder for the label images, or None.

    Returns:
        Plain values for JSON: the matrix, scores per class and per image, milliseconds per image.
    """
    count = len(dataset.classes.names)
    matrix = np.zeros((count, count), np.int64)
    cityscapes = CityscapesScores() if dataset.layout == "cityscapes" else None
    rows, seconds = [], []
    begun = time.perf_counter()
    with task(console, f"{title}: labelling and scoring") as update:
        for number, case in enumerate(cases):
            ids = case.read_ids()
            target = dataset.classes.from_file(ids, case.labels.name)
            image = read_image(case.image, info.size)
            size = (ids.shape[0], ids.shape[1])
            start = time.perf_counter()
            found = label_image(net, info, image, size=size, amp=amp, crf=crf).labels
            seconds.append(time.perf_counter() - start)
            own = confusion_matrix(target, found, count, ignore=IGNORED)
            matrix += own
            rows.append(_row(case.id, own))
            if cityscapes is not None and case.instances is not None:
                as_ids = np.array(dataset.classes.file_ids)[found]
                cityscapes.add(ids, read_label_image(case.instances), as_ids)
            if predictions is not None:
                predictions.mkdir(parents=True, exist_ok=True)
                write_label_image(predictions / f"{case.id}.png", found, dataset.classes.colours)
            left = (time.perf_counter() - begun) / (number + 1) * (len(cases) - number - 1)
            update((number + 1) / len(cases), f"{case.id} left {clock(left)}")
    return {
        **describe_matrix(matrix, dataset.classes.names),
        "cityscapes": _cityscapes(cityscapes),
        "milliseconds": 1000 * float(np.median(seconds)),
        "images": rows,
    }


def describe_matrix(matrix: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """All scores of a confusion matrix, as plain values; NaN where a class is nowhere.

    Args:
        matrix: [true, predicted].
        names: Of the classes.
    """
    scores = score_matrix(matrix)
    return {
        "mean_iou": scores.mean_iou,
        "mean_dice": scores.mean_dice,
        "mean_accuracy": scores.mean_accuracy,
        "pixel_accuracy": scores.pixel_accuracy,
        "classes": {
            name: {"iou": float(iou), "dice": float(dice), "sensitivity": float(sensitivity)}
            for name, iou, dice, sensitivity in zip(names, scores.iou, scores.dice, scores.sensitivity, strict=True)
        },
        "matrix": matrix.tolist(),
    }


def _row(case_id: str, matrix: np.ndarray) -> dict[str, Any]:
    """An image's mean IoU over the classes that its truth has."""
    scores = score_matrix(matrix)
    there = matrix.sum(1) > 0
    return {
        "id": case_id,
        "mean_iou": float(scores.iou[there].mean()) if there.any() else float("nan"),
        "pixel_accuracy": scores.pixel_accuracy,
    }


def _cityscapes(scores: CityscapesScores | None) -> dict[str, dict[str, float]] | None:
    if scores is None or not scores.matrix.any():
        return None
    return {
        "class_iou": scores.class_iou(),
        "category_iou": scores.category_iou(),
        "class_iiou": scores.class_iiou(),
        "category_iiou": scores.category_iiou(),
    }


def evaluate_model(
    model: Path,
    dataset: ImageDataset,
    *,
    split: str,
    out: Path,
    device: str = "auto",
    amp: Amp = "auto",
    crf: bool = False,
    console: Console,
) -> dict[str, Any]:
    """Score a model package on a split; writes `scores.json` and the label images.

    Args:
        model: The package, such as `variants/enet-base/model` of a run.
        dataset: Labelled images of the classes that the model knows.
        split: Which of them.
        out: Folder for the results.
        device: "auto", "cpu", "cuda", ...
        amp: As in `label_image`.
        crf: Whether a dense CRF smooths the labels, as set for Pascal VOC.
        console: Where progress and scores are shown.

    Returns:
        What `evaluate_cases` gives.

    Raises:
        ModelError: If the package is refused.
        InputError: If the split has no images, or their classes are others.
    """
    net, info = load_planar_package(model)
    cases = dataset.splits.get(split)
    if not cases:
        raise InputError(f"{dataset.name} has no images for {split}; take one of {', '.join(dataset.splits)}")
    if dataset.classes.names != info.label_names:
        raise InputError(
            f"{dataset.name} has the classes {', '.join(dataset.classes.names)}, the model"
            f" {', '.join(info.label_names)}; take the data set that it was made for"
        )
    net = to_device(net, select_device(device))
    found = evaluate_cases(
        net,
        info,
        dataset,
        cases,
        console=console,
        title=info.net,
        amp=amp,
        crf=CRFSettings() if crf else None,
        predictions=out / "labels",
    )
    write_json(out / "scores.json", {"model": model.name, "data": dataset.name, "split": split, **found})
    for name, scores in found["classes"].items():
        console.print(f"{name:>20}  IoU {100 * scores['iou']:5.1f}", highlight=False)
    console.print(f"{'mean':>20}  IoU {100 * found['mean_iou']:5.1f}", highlight=False)
    return found
