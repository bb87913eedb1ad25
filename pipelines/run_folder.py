"""The folder of a cross-validation: who holds it, what it was started with, where things lie."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voxpool import __version__
from voxpool.data import Dataset
from voxpool.errors import InputError, ResourceError, UsageError
from voxpool.io import write_json
from voxpool_pipelines.config import CrossvalConfig, Variant

SCHEMA = 1


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing; the lock ends with the process, however it ends.

    Raises:
        UsageError: If another process holds it, by its number and machine.
        ResourceError: If it cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write to {run} ({error.strerror}); choose another --out folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UsageError(
                f"{run} is in use by another voxpool run ({owner}); wait for it or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def start_run(run: Path, description: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    """Write `run.json` and `dataset.json`, or find that an interrupted run had the same options.

    Args:
        run: The folder.
        description: The content of `run.json`, with its options under "config".
        cases: The content of `dataset.json`, each with its "id".

    Raises:
        UsageError: If the folder holds a run with other options, or other things.
        InputError: If its `run.json` is damaged.
    """
    path = run / "run.json"
    options = description["config"]
    if path.exists():
        old = read_json(path)
        differ = [key for key in options if old.get("config", {}).get(key) != options[key]]
        if differ:
            key = differ[0]
            raise UsageError(
                f"{run} was started with --{key.replace('_', '-')} {old.get('config', {}).get(key)}, now it is"
                f" {options[key]}; give the same options to go on, or another --out"
            )
        if [case["id"] for case in read_json(run / "dataset.json")["cases"]] != [case["id"] for case in cases]:
            raise UsageError(f"{run} was started with other cases; give the same data to go on, or another --out")
    elif any(entry.name not in (".lock", "folds.json") for entry in run.iterdir()):
        raise UsageError(f"{run} is not empty and holds no run; choose a new folder for --out")
    write_json(run / "dataset.json", {"cases": cases})
    write_json(path, description)


def case_records(dataset: Dataset) -> list[dict[str, Any]]:
    """The content of `dataset.json`."""
    return [
        {
            "id": case.id,
            "images": [str(image) for image in case.images],
            "labels": str(case.labels),
            "subject": case.subject,
        }
        for case in dataset.cases
    ]


def describe(dataset: Dataset, config: CrossvalConfig, *, device: str, status: str) -> dict[str, Any]:
    """The content of `run.json`."""
    return {
        "schema": SCHEMA,
        "status": status,
        "name": dataset.name,
        "data": {
            "name": dataset.name,
            "convention": dataset.convention,
            "label_names": {str(label): name for label, name in dataset.label_names.items()},
            "cases": len(dataset.cases),
        },
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "seed": config.seed,
        "device": device,
    }


def versions() -> dict[str, str]:
    """Versions of what decides on results."""
    return {
        "voxpool": __version__,
        **{name: version(name) for name in ("torch", "monai", "numpy", "scipy", "nibabel", "numba")},
        "python": platform.python_version(),
    }


def fold_name(fold: int | None) -> str:
    """What a fold is called in words; None is a training on all cases."""
    return "all cases" if fold is None else f"fold {fold}"


def fold_folder(run: Path, variant: Variant, fold: int | None) -> Path:
    """Where a variant's fold lies, or what it is trained to on all cases."""
    return run / "variants" / variant.id / ("all" if fold is None else f"fold{fold}")


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run.

    Raises:
        InputError: If it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it, or start a new run folder") from error
