"""A data set verified before hours are spent on it: every problem is collected, not only the first."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from voxpool.errors import InputError
from voxpool.io import Geometry, Volume, read_labels, read_volume

from .cases import Case, Dataset, Finding, Level
from .folds import Fold, fold_findings

Progress = Callable[[int, int, str], None]

_LEVELS = ("error", "warning", "info")
_LEVEL_OF: dict[str, Level] = {"E": "error", "W": "warning", "I": "info"}
# Voxel sizes that differ by less than this share count as one spacing: scanners round them.
_SAME_SPACING = 0.01
_OBLIQUE_DEGREES = 0.5


@dataclass
class _Seen:
    """What is remembered of the cases that were read; never a volume."""

    findings: list[Finding] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    orientations: dict[str, list[str]] = field(default_factory=dict)
    spacings: list[tuple[str, tuple[float, ...]]] = field(default_factory=list)

    def add(self, code: str, message: str, case_id: str | None = None) -> None:
        self.findings.append(Finding(_LEVEL_OF[code[0]], code, case_id, message))


def check_dataset(
    dataset: Dataset, *, folds: Sequence[Fold] | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Reads every file of a data set once and lists all that is wrong or unusual.

    Errors stop a run: E101 missing file, E102 to E115 unusable file, E116 constant image, E120 and E121 grids
    that differ, E122 unknown or fractional labels, E123 empty labels everywhere, E124 class without a voxel
    in a fold, E125 channels, E126 to E129 folds and ids. Warnings (W202 to W209) and information (I301) do
    not. One case is in memory at a time.

    Args:
        dataset: From `find_dataset`.
        folds: The split to check with it, None when there is none yet.
        progress: Called after each case with the number done, the number of all, and the id.

    Returns:
        Findings about the whole set first, then case by case.
    """
    whole, seen = _Seen(), _Seen()
    _check_ids(dataset, whole)
    for number, case in enumerate(dataset.cases, start=1):
        _check_case(case, dataset, seen)
        if progress is not None:
            progress(number, len(dataset.cases), case.id)
    _check_mixture(seen, whole)
    _check_classes(dataset, seen, folds, whole)
    if folds is not None:
        whole.findings.extend(fold_findings(folds, dataset.cases))
        held = {case_id for fold in folds for case_id in (*fold.train, *fold.test)}
    else:
        held = set()
    for case in dataset.cases:
        if case.labels is None:
            if case.id in held:
                seen.add("E101", "has no labels but is in a fold; add them or leave the case out", case.id)
            else:
                seen.add("W208", "has no labels: it can be segmented, not trained on or scored", case.id)
    return [*whole.findings, *seen.findings]


def render_findings(findings: Iterable[Finding]) -> list[str]:
    """Renders findings as lines: errors first, a count at the end.

    Args:
        findings: From `check_dataset`.

    Returns:
        One line per finding and one that sums up.
    """
    ordered = sorted(findings, key=lambda finding: _LEVELS.index(finding.level))
    lines = []
    for finding in ordered:
        about = f"{finding.case_id}: " if finding.case_id else ""
        lines.append(f"{finding.level:<7} {finding.code}  {about}{finding.message}")
    errors, warnings = (sum(f.level == level for f in ordered) for level in _LEVELS[:2])
    lines.append(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    return lines


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _check_ids(dataset: Dataset, whole: _Seen) -> None:
    if not dataset.cases:
        whole.add("E101", f"{dataset.name} has no case; check the path and the layout")
    by_name: dict[str, list[str]] = {}
    for case in dataset.cases:
        # Folders on Windows and macOS ignore case, and macOS also the composition of accents.
        by_name.setdefault(unicodedata.normalize("NFC", case.id).casefold(), []).append(case.id)
    for ids in by_name.values():
        if len(ids) > 1:
            whole.add("E127", f"the case ids {', '.join(ids)} are one file on some systems; rename all but one")
    channels = {len(case.images) for case in dataset.cases}
    if len(channels) > 1:
        counts = " or ".join(map(str, sorted(channels)))
        whole.add("E125", f"cases have {counts} channels; give all cases the same ones")
    values = sorted(dataset.label_names)
    if values != list(range(len(values))):
        whole.add(
            "E122",
            f"label values must be 0 to {len(values) - 1} without a gap, got {_some(values)}; renumber the label maps",
        )


def _check_case(case: Case, dataset: Dataset, seen: _Seen) -> None:
    grid: Geometry | None = None
    for path in case.images:
        image = _try_read(partial(read_volume, path), case.id, seen)
        if image is None:
            continue
        _check_image(image, path, case.id, seen)
        if grid is None:
            grid = image.geometry
            seen.orientations.setdefault(grid.orientation, []).append(case.id)
            seen.spacings.append((case.id, grid.spacing))
        else:
            _check_grid(image.geometry, grid, path, case.id, seen)
    if case.labels is None:
        return
    path = case.labels
    labels = _try_read(partial(read_labels, path), case.id, seen)
    if labels is None:
        return
    if grid is not None:
        _check_grid(labels.geometry, grid, path, case.id, seen)
    _check_duplicate(labels, path, case.id, seen.labels, seen, "W209")
    values, counts = np.unique(labels.array, return_counts=True)
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    unknown = [value for value in found if value not in dataset.label_names]
    if unknown:
        shown = _some([f"{value} ({found[value]} voxels)" for value in unknown])
        known = _some(sorted(dataset.label_names))
        seen.add("E122", f"{path.name}: unknown label {shown}, known are {known}; correct or name them", case.id)
    seen.values[case.id] = set(found)
    if seen.values[case.id] <= {0}:
        seen.add("W205", f"{path.name}: has background only; is it the right file?", case.id)


def _try_read(read: Callable[[], Volume], case_id: str, seen: _Seen) -> Volume | None:
    try:
        return read()
    except InputError as error:
        text, code = _split_code(str(error))
        seen.add(code, text, case_id)
        return None


def _split_code(message: str) -> tuple[str, str]:
    """Takes the code off the end of a reader's sentence."""
    hit = re.fullmatch(r"(.*) \((E\d{3})\)", message, flags=re.DOTALL)
    return (hit[1], hit[2]) if hit else (message, "E103")


def _check_image(image: Volume, path: Path, case_id: str, seen: _Seen) -> None:
    if image.array.min() == image.array.max():
        value = image.array.flat[0]
        seen.add("E116", f"{path.name}: every voxel is {value:g}; is it the right file?", case_id)
    else:
        _check_duplicate(image, path, case_id, seen.images, seen, "E127")
    for notice in image.notices:
        hit = re.fullmatch(r"(.*) \((W\d{3})\)", notice)
        if hit:
            seen.add(hit[2], f"{path.name}: {hit[1]}", case_id)
    if image.geometry.obliquity_degrees > _OBLIQUE_DEGREES:
        degrees = image.geometry.obliquity_degrees
        seen.add("I301", f"{path.name}: is {degrees:.1f} degrees oblique; its grid is kept", case_id)


def _check_duplicate(volume: Volume, path: Path, case_id: str, known: dict[str, str], seen: _Seen, code: str) -> None:
    """Compares voxels, not files: a copy that was compressed again is still a copy."""
    if code == "W209" and not volume.array.any():
        return
    digest = hashlib.sha256(repr(volume.array.shape).encode())
    digest.update(np.ascontiguousarray(volume.array).data)
    first = known.setdefault(digest.hexdigest(), f"{case_id} ({path.name})")
    if first != f"{case_id} ({path.name})":
        seen.add(code, f"{path.name}: has the same voxels as {first}; remove the copy", case_id)


def _check_grid(grid: Geometry, wanted: Geometry, path: Path, case_id: str, seen: _Seen) -> None:
    if grid.shape != wanted.shape:
        seen.add(
            "E120",
            f"{path.name}: has the shape {grid.shape}, the image has {wanted.shape}; resample it to the image",
            case_id,
        )
    elif not grid.matches(wanted):
        seen.add(
            "E121",
            f"{path.name}: lies up to {grid.distance_mm(wanted):.3g} mm off the image (affines differ); "
            "resample it to the image or repair its header",
            case_id,
        )


def _check_mixture(seen: _Seen, whole: _Seen) -> None:
    if len(seen.orientations) > 1:
        by_name = sorted(seen.orientations.items())
        shown = ", ".join(f"{name} ({_count(len(ids), 'case')})" for name, ids in by_name)
        whole.add("W206", f"orientations are mixed: {shown}; all are reoriented for training")
    if seen.spacings:
        sizes = np.array([spacing for _, spacing in seen.spacings])
        low, high = np.sort(sizes, axis=1).min(axis=0), np.sort(sizes, axis=1).max(axis=0)
        if (high > low * (1 + _SAME_SPACING)).any():
            shown = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True))
            whole.add("W207", f"voxel sizes are mixed: {shown} mm; consider one spacing for training")


def _check_classes(dataset: Dataset, seen: _Seen, folds: Sequence[Fold] | None, whole: _Seen) -> None:
    """A class without a voxel cannot be learnt, and one without a truth cannot be scored."""
    if not seen.values:
        return
    if all(values <= {0} for values in seen.values.values()):
        whole.add("E123", "the labels of all cases are empty; check the label files")
        return
    sides = [("any case", tuple(seen.values))]
    sides += [
        (f"any {side} case of fold {number}", ids)
        for number, fold in enumerate(folds or ())
        for side, ids in (("training", fold.train), ("test", fold.test))
    ]
    for where, ids in sides:
        present = set().union(*(seen.values.get(case_id, set()) for case_id in ids))
        absent = [name for value, name in dataset.label_names.items() if value and value not in present]
        if present and absent:
            whole.add("E124", f"{_some(absent)} has no voxel in {where}; use other folds or fewer classes")
            if where == "any case":
                return


def _some(items: Sequence[object]) -> str:
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return ", ".join(map(str, items[:8])) + more
