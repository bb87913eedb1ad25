"""Axial slices of chosen cases with truth and predictions laid over them, as the paper's Figure 9."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxpool.errors import InputError, VoxpoolError
from voxpool.io import read_labels, read_volume
from voxpool.nets import HEADS
from voxpool_pipelines.report.png import grey_png, palette_png
from voxpool_pipelines.report.summary import RunSummary, VariantSummary
from voxpool_pipelines.results import CaseResult, RunResults, VariantResult

SLICES = 12
MOST_CASES = 12
MARGIN = 6
LARGEST_SIDE = 220
# What all images may take as files; base64 adds a third, and the whole page is to stay below 5 MB.
BUDGET = 3_200_000

# Okabe and Ito's palette, in an order whose first three differ in lightness too, for prints in grey.
COLOURS = (
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
)
ERROR_COLOUR = (255, 60, 172)


@dataclass(frozen=True)
class Slice:
    """One axial slice as PNG files, seen in radiological convention.

    Attributes:
        number: Index of the slice from below, starting at 1.
        image: The image itself.
        classes: Class overlays: the truth first, then one per prediction.
        errors: Where each prediction differs from the truth.
    """

    number: int
    image: bytes
    classes: tuple[bytes, ...]
    errors: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(len(each) for each in (self.image, *self.classes, *self.errors))


@dataclass(frozen=True)
class SliceSet:
    """The slices of one case.

    Attributes:
        case_id: The case.
        role: Why it was chosen, such as `median of fold 0`.
        predictions: The scores of each prediction shown, in the order of the overlays.
        depth: Number of axial slices in the whole volume.
        aspect: Width of a slice over its height, in mm.
        slices: The slices from below to above.
    """

    case_id: str
    role: str
    predictions: tuple[CaseResult, ...]
    depth: int
    aspect: float
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Gallery:
    """What the slice viewer shows.

    Attributes:
        shown: The variants whose predictions are laid over the image.
        sets: The cases.
        unreadable: Cases whose files could not be read any more.
    """

    shown: tuple[VariantSummary, ...]
    sets: tuple[SliceSet, ...]
    unreadable: tuple[str, ...]


def make_gallery(summary: RunSummary) -> Gallery:
    """Choose cases and cut their slices.

    In every fold it takes the case with the median and the one with the lowest foreground Dice of the base.

    Args:
        summary: The run, summarised.

    Returns:
        The gallery; a case whose image, truth or prediction cannot be read is named instead of shown.
    """
    shown = _shown_variants(summary)
    if not shown:
        return Gallery((), (), ())
    sets, unreadable = [], []
    for role, case in _choose_cases(summary.run, shown[0].result):
        try:
            sets.append(_cut(summary.run, shown, case, role))
        except (VoxpoolError, OSError):
            # Only the id: the reason may name folders, and the page is made to be passed on.
            unreadable.append(case.case_id)
    return Gallery(shown, tuple(_within_budget(sets)), tuple(unreadable))


def colour(label_index: int) -> tuple[int, int, int]:
    """Colour of the n-th foreground class, counted from 0."""
    return COLOURS[label_index % len(COLOURS)]


def _shown_variants(summary: RunSummary) -> tuple[VariantSummary, ...]:
    """The base and its best V3, or another pooled head where there is no V3, or the best of what is left."""
    pooled = [each for each in summary.variants if each.variant.segments is not None]
    hybrid = [each for each in pooled if HEADS.get(each.variant.head, {}).get("version") == "v3"]
    best = summary.best(hybrid) or summary.best(pooled)
    if best is None:
        only = summary.best()
        return (only,) if only else ()
    base = summary.find(net=best.variant.net, reduction=best.variant.reduction, head="base")
    return (best,) if base is None or not base.result.complete else (base, best)


def _choose_cases(run: RunResults, base: VariantResult) -> list[tuple[str, CaseResult]]:
    chosen = []
    for fold in run.asked_folds:
        members = sorted(
            (case for case in base.cases if case.fold == fold and not math.isnan(case.dice_foreground)),
            key=lambda case: (case.dice_foreground, case.case_id),
        )
        if len(members) == 1:
            chosen.append((f"only case of fold {fold}", members[0]))
        elif members:
            chosen.append((f"median of fold {fold}", members[len(members) // 2]))
            chosen.append((f"lowest of fold {fold}", members[0]))
    if len(chosen) <= MOST_CASES:
        return chosen
    chosen.sort(key=lambda each: each[1].dice_foreground)
    return [chosen[index] for index in np.linspace(0, len(chosen) - 1, MOST_CASES).round().astype(int)]


def _cut(run: RunResults, shown: Sequence[VariantSummary], case: CaseResult, role: str) -> SliceSet:
    files = run.cases.get(case.case_id)
    if files is None or files.labels is None:
        raise InputError(f"case {case.case_id} has no labels in dataset.json, so there is no truth to show")
    image = read_volume(files.images[0])
    truth = read_labels(files.labels)
    predictions = [read_labels(run.prediction_path(each.variant.id, case)) for each in shown]
    for volume in (truth, *predictions):
        if volume.array.shape != image.array.shape:
            raise InputError(
                f"case {case.case_id}: labels have shape {volume.array.shape}, the image {image.array.shape}"
            )
    ras = [image.geometry.to_ras(volume.array) for volume in (image, truth, *predictions)]
    spacing = image.geometry.ras().spacing
    box, numbers = _view(ras[1])
    ids = sorted(label for label in run.data.label_names if label != 0)
    grey = _window(ras[0][box])
    wanted, *found = (_class_indices(labels[box], ids) for labels in ras[1:])
    step = math.ceil(max(grey.shape[:2]) / LARGEST_SIDE)
    colours = [colour(index) for index in range(len(ids))]
    slices = []
    for number in numbers:
        at = number - box[2].start
        truth_plane = _radiological(wanted[..., at], step)
        planes = [_radiological(each[..., at], step) for each in found]
        slices.append(
            Slice(
                number=number + 1,
                image=grey_png(_radiological(grey[..., at], step)),
                classes=tuple(palette_png(plane, colours) for plane in (truth_plane, *planes)),
                errors=tuple(palette_png((plane != truth_plane).astype(np.uint8), [ERROR_COLOUR]) for plane in planes),
            )
        )
    by_id = [{each.case_id: each for each in variant.result.cases} for variant in shown]
    return SliceSet(
        case_id=case.case_id,
        role=role,
        predictions=tuple(cases[case.case_id] for cases in by_id),
        depth=ras[1].shape[2],
        aspect=grey.shape[0] * spacing[0] / (grey.shape[1] * spacing[1]),
        slices=tuple(slices),
    )


def _view(truth: np.ndarray) -> tuple[tuple[slice, slice, slice], list[int]]:
    """The box around the truth with some margin, and the axial slices to show."""
    box = []
    for axis in range(3):
        inside = np.flatnonzero((truth > 0).any(axis=tuple(other for other in range(3) if other != axis)))
        if not inside.size:
            inside = np.arange(truth.shape[axis])
        box.append((int(inside[0]), int(inside[-1]) + 1))
    low, high = box[2]
    # The outermost slices hold a few voxels only.
    edge = 0.06 * (high - low)
    numbers = np.unique(np.linspace(low + edge, high - 1 - edge, SLICES).round().astype(int))
    view = tuple(
        slice(max(0, first - MARGIN), min(size, last + MARGIN))
        for (first, last), size in zip(box, truth.shape, strict=True)
    )
    return view, numbers.tolist()  # type: ignore[return-value]


def _window(image: np.ndarray) -> np.ndarray:
    """Grey levels between two robust quantiles; 64 levels look the same and compress better."""
    low, high = np.quantile(image, [0.005, 0.995])
    scaled = np.clip((image - low) / max(float(high - low), 1e-12), 0, 1)
    return (np.round(63 * scaled) * 255 / 63).astype(np.uint8)


def _class_indices(labels: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    indices = np.zeros(labels.shape, np.uint8)
    for index, label in enumerate(ids, start=1):
        indices[labels == label] = index
    return indices


def _radiological(plane: np.ndarray, step: int) -> np.ndarray:
    """Rows and columns of a RAS plane (x, y): anterior on top, the patient's right on the left."""
    return np.ascontiguousarray(plane[::-step, ::-step].T)


def _within_budget(sets: list[SliceSet]) -> list[SliceSet]:
    """Every other slice goes until all images fit into the page."""
    while sum(each.size for case in sets for each in case.slices) > BUDGET:
        sets = [
            SliceSet(
                case_id=case.case_id,
                role=case.role,
                predictions=case.predictions,
                depth=case.depth,
                aspect=case.aspect,
                slices=case.slices[len(case.slices) // 2 % 2 :: 2],
            )
            for case in sets
        ]
    return sets
