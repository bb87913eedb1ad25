"""Segment volumes with a model package: one label map and one JSON file per input."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from voxpool import __version__
from voxpool.errors import Cancelled, InputError, UsageError, VoxpoolError
from voxpool.inference import Segmentation, Segmenter
from voxpool.io import (
    Volume,
    is_dicom_file,
    read_dicom,
    read_volume,
    stem,
    write_json,
    write_segmentation,
    write_volume,
)
from voxpool.model_package import weights_sha256
from voxpool_pipelines.console import task
from voxpool_pipelines.run_folder import read_json

OUTPUT = "_labels.nii.gz"
SEGMENTATION = "_labels.dcm"
UNCERTAINTY = "_uncertainty.nii.gz"


@dataclass(frozen=True)
class PredictOptions:
    """How inputs are segmented.

    Attributes:
        model: Model package, or "bundled".
        device: "auto", "cpu", "cuda", ...
        tile: Side of the tiles, or None to choose by memory.
        convention: How the classes merge into CSF, GM and WM; None to keep them.
        uncertainty: Whether to write `<name>_uncertainty.nii.gz` too: of each supervoxel, in percent.
        series: SeriesInstanceUID to take of a DICOM folder with several volumes.
        dicom_seg: Whether to write `<name>_labels.dcm` too, for inputs that are DICOM.
        overwrite: Whether to segment again what is there already, made by the same model from the same file.
    """

    model: Path
    device: str = "auto"
    tile: int | None = None
    convention: str | None = None
    uncertainty: bool = False
    series: str | None = None
    dicom_seg: bool = False
    overwrite: bool = False


def predict(inputs: Sequence[Path], options: PredictOptions, *, out: Path, console: Console) -> int:
    """Segment files and DICOM folders; one bad one never stops the rest.

    Args:
        inputs: Volumes and DICOM folders, see `list_inputs`.
        options: How.
        out: Gets `<name>_labels.nii.gz` and `<name>.json` per input, and what else is asked for.
        console: Where progress is shown.

    Returns:
        Number of inputs that failed.

    Raises:
        UsageError: If two inputs would get the same name, or the model has no supervoxels to be uncertain of.
        ModelError: If the package is refused.
    """
    named = _named(inputs)
    segmenter = Segmenter.load(options.model, device=options.device)
    if options.uncertainty and segmenter.info.supervoxels is None:
        raise UsageError(f"the model {options.model} has no supervoxels, which --uncertainty is of; leave it out")
    model_hash = weights_sha256(options.model)
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, path in named.items():
        record = {"voxpool": __version__, "case": name, "input_sha256": None, "model_sha256": model_hash}
        record["convention"] = options.convention
        try:
            record["input_sha256"] = _sha256(path, options.series)
            outputs = {kind: out / f"{name}{kind}" for kind in _wanted(options, path)}
            if not options.overwrite and _is_done(out / f"{name}.json", list(outputs.values()), record):
                console.print(f"{name}: done before", highlight=False, soft_wrap=True)
                continue
            with task(console, name) as update:
                start = time.perf_counter()
                volume = read_dicom(path, uid=options.series) if path.is_dir() else read_volume(path)
                read = time.perf_counter() - start
                outcome = _segment(segmenter, volume, outputs, options, lambda s, f: update(f, s))
                outcome["seconds"] = {"read": round(read, 3), **outcome["seconds"]}
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

    A folder without such a volume is searched for DICOM files; each folder that holds some is one input.

    Raises:
        InputError: If a folder holds neither.
    """
    files = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.rglob(pattern) if stem(file.name) is not None)
        inside = inside or _dicom_folders(path, pattern)
        if not inside:
            raise InputError(f"{path} holds no volume that fits {pattern}; name the files, or give --image")
        files += inside
    return files


def _dicom_folders(root: Path, pattern: str) -> list[Path]:
    """Folders that hold DICOM files; those inside another one belong to it."""
    found = {file.parent for file in root.rglob(pattern) if file.is_file() and is_dicom_file(file)}
    return sorted(folder for folder in found if found.isdisjoint(folder.parents))


def _named(files: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in files:
        name = path.resolve().name if path.is_dir() else stem(path.name) or path.name
        if name in named:
            raise UsageError(
                f"{named[name]} and {path} would both become {name}{OUTPUT}; segment them into two folders"
            )
        named[name] = path
    return named


def _wanted(options: PredictOptions, path: Path) -> list[str]:
    """Kinds of files to write for an input."""
    kinds = {OUTPUT: True, UNCERTAINTY: options.uncertainty, SEGMENTATION: options.dicom_seg and path.is_dir()}
    return [kind for kind, wanted in kinds.items() if wanted]


def _segment(
    segmenter: Segmenter,
    volume: Volume,
    outputs: Mapping[str, Path],
    options: PredictOptions,
    progress: Any,
) -> dict[str, Any]:
    """Write the labels, and what else is wanted; return what the JSON file tells."""
    found = segmenter.segment(volume, tile=options.tile, convention=options.convention, progress=progress)
    segmented = time.perf_counter()
    write_volume(outputs[OUTPUT], found.labels, like=volume)
    if UNCERTAINTY in outputs and found.segments is not None and found.uncertainty is not None:
        percent = np.append(np.rint(100 * found.uncertainty), 0).astype(np.uint8)  # the last is that of no supervoxel
        write_volume(outputs[UNCERTAINTY], percent[found.segments], like=volume)
    if SEGMENTATION in outputs:
        algorithm = f"voxpool {segmenter.info.net}"
        write_segmentation(
            outputs[SEGMENTATION], found.labels, volume, label_names=found.label_names, algorithm=algorithm
        )
    stages = {**found.stages, "write": time.perf_counter() - segmented}
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


def _sha256(path: Path, series: str | None = None) -> str:
    """Of a file, or of the files of a DICOM folder and the series chosen of them."""
    if path.is_dir():
        sums = [_sha256(file) for file in sorted(path.rglob("*")) if file.is_file() and is_dicom_file(file)]
        return hashlib.sha256("".join([*sums, series or ""]).encode()).hexdigest()
    if not path.is_file():
        raise InputError(f"no such file: {path}; check the name")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
