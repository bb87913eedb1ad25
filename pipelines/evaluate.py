"""Score label maps that any program made against a data set's truth."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from voxpool.data import Case, Dataset
from voxpool.errors import InputError, VoxpoolError
from voxpool.io import read_labels, write_json, write_text
from voxpool.metrics import score_case
from voxpool_pipelines.console import task
from voxpool_pipelines.interruptions import stop_if_interrupted

COLUMNS = ("case_id", "class", "dice", "hd95_mm", "assd_mm", "volume_ml", "target_volume_ml", "status")


def evaluate(predictions: Path, dataset: Dataset, *, out: Path, console: Console) -> int:
    """Score every case that has a prediction and a label map.

    Args:
        predictions: Folder of `<case id>.nii.gz` or `<case id>_labels.nii.gz`.
        dataset: Cases with labels.
        out: Gets `scores.csv` (one row per case and class) and `scores.json` (means).
        console: Where the table is shown.

    Returns:
        Number of cases that failed, those without a prediction included.

    Raises:
        InputError: If there is no prediction at all.
    """
    found = {case.id: path for case in dataset.cases if (path := _prediction(predictions, case.id))}
    if not found:
        wanted = f"{dataset.cases[0].id}.nii.gz"
        raise InputError(f"{predictions} holds no prediction of {dataset.name}; wanted files such as {wanted}")
    rows: list[dict[str, Any]] = []
    failed = 0
    with task(console, "scoring") as update:
        for number, case in enumerate(dataset.cases):
            try:
                if case.id not in found:
                    raise InputError(f"no prediction {case.id}.nii.gz in {predictions}; segment that case too")
                rows += _score(case, found[case.id], dataset.label_names)
            except VoxpoolError as error:
                stop_if_interrupted()
                failed += 1
                console.print(f"{case.id}: failed: {error}", highlight=False, markup=False, soft_wrap=True)
            update((number + 1) / len(dataset.cases), case.id)
    names = [name for label, name in sorted(dataset.label_names.items()) if label]
    means = {name: _means([row for row in rows if row["class"] == name]) for name in names}
    out.mkdir(parents=True, exist_ok=True)
    lines = [",".join(COLUMNS), *(",".join(_cell(row[column]) for column in COLUMNS) for row in rows)]
    write_text(out / "scores.csv", "\n".join(lines) + "\n")
    write_json(out / "scores.json", {"convention": dataset.convention, "failed": failed, "classes": means})
    for name, mean in means.items():
        console.print(
            f"{name}: Dice {mean['dice']:.4f}, HD95 {mean['hd95_mm']:.2f} mm", highlight=False, soft_wrap=True
        )
    return failed


def _prediction(folder: Path, case_id: str) -> Path | None:
    for name in (f"{case_id}.nii.gz", f"{case_id}_labels.nii.gz", f"{case_id}.nii"):
        if (folder / name).is_file():
            return folder / name
    return None


def _score(case: Case, path: Path, names: dict[int, str]) -> list[dict[str, Any]]:
    if case.labels is None:
        raise InputError(f"{case.id} has no label map; add it or leave the case out")
    target, prediction = read_labels(case.labels), read_labels(path, allowed=list(names))
    if not prediction.geometry.matches(target.geometry):
        raise InputError(
            f"{path.name}: grid {prediction.geometry.shape} differs from the truth's {target.geometry.shape} in size or"
            " position; resample it to the truth's grid"
        )
    scores = score_case(prediction.array, target.array, spacing=target.geometry.spacing, label_names=names)
    return [
        {
            "case_id": case.id,
            "class": name,
            "dice": score.dice,
            "hd95_mm": score.hd95_mm,
            "assd_mm": score.assd_mm,
            "volume_ml": score.volume_ml,
            "target_volume_ml": score.target_volume_ml,
            "status": score.status,
        }
        for name, score in scores.items()
    ]


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> float:
        values = np.array([row[key] for row in rows], float)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    statuses = [row["status"] for row in rows]
    counts = {f"n_{status}": statuses.count(status) for status in ("ok", "missed", "false_positive", "absent_ok")}
    return {"dice": mean("dice"), "hd95_mm": mean("hd95_mm"), "assd_mm": mean("assd_mm"), **counts}


def _cell(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
