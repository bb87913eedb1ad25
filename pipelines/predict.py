"""Segment volumes with a model package: one label map and one JSON file per input."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from voxpool import __version__
from voxpool.errors import Cancelled, InputError, UsageError, VoxpoolError
from voxpool.inference import Segmentation, Segmenter
from voxpool.io import read_volume, stem, write_json, write_volume
from voxpool.model_package import weights_sha256
from voxpool_pipelines.console import task
from voxpool_pipelines.run_folder import read_json

OUTPUT = "_labels.nii.gz"
UNCERTAINTY = "_uncertainty.nii.gz"


def predict(
    inputs: Sequence[Path],
    *,
    model: Path,
    out: Path,
    device: str,
    tile: int | None,
    convention: str | None,
    uncertainty: bool,
    overwrite: bool,
    console: Console,
) -> int:
    """Segment files; one bad file never stops the rest.

    Args:
        inputs: Volumes, see `list_inputs`.
        model: Model package, or "bundled".
        out: Gets `<name>_labels.nii.gz` and `<name>.json` per input.
        device: "auto", "cpu", "cuda", ...
        tile: Side of the tiles, or None to choose by memory.
        convention: How the classes merge into CSF, GM and WM; None to keep them.
        uncertainty: Whether to write `<name>_uncertainty.nii.gz` too: of each supervoxel, in percent.
        overwrite: Whether to segment again what is there already, made by the same model from the same file.
        console: Where progress is shown.

    Returns:
        Number of inputs that failed.

    Raises:
        UsageError: If two inputs would get the same name, or the model has no supervoxels to be uncertain of.
        ModelError: If the package is refused.
    """
    named = _named(inputs)
    segmenter = Segmenter.load(model, device=device)
    if uncertainty and segmenter.info.supervoxels is None:
        raise UsageError(f"the model {model} has no supervoxels, which --uncertainty is of; leave it out")
    model_hash = weights_sha256(model)
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, path in named.items():
        record = {"voxpool": __version__, "case": name, "input_sha256": None, "model_sha256": model_hash}
        record["convention"] = convention
        try:
            record["input_sha256"] = _sha256(path)
            outputs = [out / f"{name}{OUTPUT}"] + ([out / f"{name}{UNCERTAINTY}"] if uncertainty else [])
            if not overwrite and _is_done(out / f"{name}.json", outputs, record):
                console.print(f"{name}: done before", highlight=False, soft_wrap=True)
                continue
            with task(console, name) as update:
                outcome = _segment(segmenter, path, outputs, tile, convention, lambda s, f: update(f, s))
            write_json(out / f"{name}.json", {**record, **outcome})
        except Cancelled:
            raise
        except (VoxpoolError, OSError) as error:
            failed += 1
            console.print(f"{name}: failed: {error}", highlight=False, markup=False, soft_wrap=True)
            write_json(out / f"{name}.json", {**record, "status": "failed", "error": str(error)})
    console.print(f"{len(named) - failed} of {len(named)} segmented", highlight=False, soft_wrap=True)
    return failed


def list_inputs(inputs: Sequence[Path], pattern: str) -> list[Path]:
    """The volumes that inputs name: files as they are, folders by a pattern, at any depth.

    Raises:
        InputError: If a folder holds none.
    """
    files = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.rglob(pattern) if stem(file.name) is not None)
        if not inside:
            raise InputError(f"{path} holds no volume that fits {pattern}; name the files, or give --image")
        files += inside
    return files


def _named(files: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in files:
        name = stem(path.name) or path.name
        if name in named:
            raise UsageError(
                f"{named[name]} and {path} would both become {name}{OUTPUT}; segment them into two folders"
            )
        named[name] = path
    return named


def _segment(
    segmenter: Segmenter, path: Path, outputs: Sequence[Path], tile: int | None, convention: str | None, progress: Any
) -> dict[str, Any]:
    """Write the labels, and the uncertainty where a second file is named; return what the JSON file tells."""
    start = time.perf_counter()
    volume = read_volume(path)
    read = time.perf_counter()
    found = segmenter.segment(volume, tile=tile, convention=convention, progress=progress)
    segmented = time.perf_counter()
    write_volume(outputs[0], found.labels, like=volume)
    if len(outputs) > 1 and found.segments is not None and found.uncertainty is not None:
        percent = np.append(np.rint(100 * found.uncertainty), 0).astype(np.uint8)  # the last is that of no supervoxel
        write_volume(outputs[1], percent[found.segments], like=volume)
    stages = {"read": read - start, **found.stages, "write": time.perf_counter() - segmented}
    return {**_outcome(found), "seconds": {stage: round(seconds, 3) for stage, seconds in stages.items()}}


def _outcome(found: Segmentation) -> dict[str, Any]:
    warnings = [f"no voxel of {name} was found" for name, volume in found.volumes_ml.items() if volume == 0]
    warnings += found.warnings
    return {
        "status": "warn" if warnings else "ok",
        "warnings": warnings,
        "volumes_ml": {name: round(volume, 3) for name, volume in found.volumes_ml.items()},
        "label_names": {str(label): name for label, name in found.label_names.items()},
        "confidence": {name: round(share, 4) for name, share in found.confidence.items()},
        "quality": round(found.quality, 4),
        "num_segments": found.num_segments,
        "note": "research use only, not a medical device",
    }


def _is_done(sidecar: Path, outputs: Sequence[Path], record: dict[str, Any]) -> bool:
    if not sidecar.exists() or not all(output.exists() for output in outputs):
        return False
    try:
        old = read_json(sidecar)
    except InputError:
        return False
    return old.get("status") in ("ok", "warn") and all(old.get(key) == value for key, value in record.items())


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no such file: {path}; check the name")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
