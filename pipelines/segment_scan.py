"""One scan of a cohort: read, segmented, written, and told of in a JSON file. Done twice it is done once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxpool import __version__
from voxpool.errors import InputError, ResourceError, VoxpoolError
from voxpool.inference import Segmentation, Segmenter
from voxpool.io import Volume, file_sha256, read_dicom, read_volume, write_json, write_segmentation, write_volume
from voxpool_pipelines.interruptions import stop_if_interrupted
from voxpool_pipelines.memory import peak_gigabytes, reset_peak
from voxpool_pipelines.privacy import keep_private, redact
from voxpool_pipelines.run_folder import read_json, versions
from voxpool_pipelines.scans import Scan, sha256_of

SCHEMA = 1
LABELS, SEGMENTATION, UNCERTAINTY = "_labels.nii.gz", "_labels.dcm", "_uncertainty.nii.gz"
DONE = ("ok", "warn")

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PredictOptions:
    """How scans are segmented.

    Attributes:
        model: Model package, or "bundled".
        device: "auto", "cpu", "cuda", ...
        tile: Side of the tiles, or None to choose by memory.
        convention: How the classes merge into CSF, GM and WM; None to keep them.
        uncertainty: Whether to write `<name>_uncertainty.nii.gz` too: of each supervoxel, in percent.
        series: SeriesInstanceUID to take of a DICOM folder with several volumes.
        volume: Which volume of 4D files to take, from 0.
        dicom_seg: Whether to write `<name>_labels.dcm` too, for inputs that are DICOM.
        assume_affine: Accept files that state no position.
        prefer: "sform" or "qform", where the two disagree.
        nan_to_zero: Replace NaN and infinite voxels by 0.
        max_gb: Largest volume in memory, in 10^9 bytes.
        threads: Threads that compute a scan. Sums are rounded differently with another number of them, so that a voxel
            in millions may get another label.
        overwrite: Whether to segment again what is there already.
        record_paths: Whether the JSON files name the inputs with their folders.
    """

    model: Path
    device: str = "auto"
    tile: int | None = None
    convention: str | None = None
    uncertainty: bool = False
    series: str | None = None
    volume: int | None = None
    dicom_seg: bool = False
    assume_affine: bool = False
    prefer: str | None = None
    nan_to_zero: bool = False
    max_gb: float = 4.0
    threads: int | None = None
    overwrite: bool = False
    record_paths: bool = False


@lru_cache(maxsize=1)
def load_segmenter(model: Path, device: str) -> Segmenter:
    """The segmenter of this process: a worker loads its model once, not once per scan."""
    return Segmenter.load(model, device=device)


def identity(options: PredictOptions, model_sha256: str) -> dict[str, Any]:
    """What decides on the labels beside the scan; results of one folder have it in common."""
    return {
        "voxpool": __version__,
        "model_sha256": model_sha256,
        "convention": options.convention,
        "series": options.series,
        "volume": options.volume,
    }


def new_record(name: str, options: PredictOptions, model_sha256: str) -> dict[str, Any]:
    """What the JSON file of a scan begins with."""
    return {"schema": SCHEMA, "case": name, "input_sha256": None, **identity(options, model_sha256)}


def segment_apart(scan: Scan, *, options: PredictOptions, model_sha256: str, out: Path) -> dict[str, Any]:
    """`segment_scan` in a process of its own, which must keep as silent of patients as the driver."""
    keep_private()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return segment_scan(scan, options=options, model_sha256=model_sha256, out=out)


def segment_scan(
    scan: Scan,
    *,
    options: PredictOptions,
    model_sha256: str,
    out: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Segment a scan, unless that was done before; whatever goes wrong with it is written down, not raised.

    Args:
        scan: The input.
        options: How.
        model_sha256: Of the weights of the model.
        out: Gets `<name>_labels.nii.gz`, what else is asked for, and at last `<name>.json`.
        progress: Called with the stage and a fraction 0..1 of all.

    Returns:
        "name", "status" ("ok", "warn" or "failed"), "again" (whether there was anything to do), "seconds", and the
        "error" or the "warnings".

    Raises:
        Interrupted: If the process was asked to end.

    Determinism: the same scan, model, options and number of threads give the same bytes of label maps, in whichever
    process.
    """
    start = time.perf_counter()
    record = new_record(scan.name, options, model_sha256)
    if options.record_paths:
        record["inputs"] = [str(path.resolve()) for path in scan.paths]
    sidecar = out / f"{scan.name}.json"
    outputs = {kind: out / f"{scan.name}{kind}" for kind in _wanted(options, scan)}
    again, outcome = True, None
    try:
        record["input_sha256"] = sha256_of(scan, options.series)
        outcome = None if options.overwrite else _done_before(sidecar, outputs, record)
        again = outcome is None
        if outcome is None:
            reset_peak()
            outcome = _segment(scan, outputs, options, progress)
            outcome["peak_memory_gb"] = peak_gigabytes()
            outcome["versions"] = versions()
            outcome["outputs"] = {path.name: file_sha256(path) for path in outputs.values()}
            write_json(sidecar, {**record, **outcome})
    except Exception as error:  # one bad scan, even one that shows a mistake of ours, never stops the rest
        stop_if_interrupted()
        reason = _reason(error, scan, out)
        # where the disk is full nothing can be written down, and what an earlier run wrote is left as it is
        outcome = {"status": "failed", "error": reason}
        if not isinstance(error, ResourceError):
            outcome = note_failure(sidecar, record, reason)
    return row_of(scan.name, outcome, again=again, seconds=time.perf_counter() - start)


def row_of(name: str, outcome: Mapping[str, Any], *, again: bool, seconds: float | None) -> dict[str, Any]:
    """A scan's row in the report of a run, see `segment_scan`; seconds are None where its processes died."""
    return {
        "name": name,
        "status": outcome["status"],
        "again": again,
        "seconds": None if seconds is None else round(seconds, 3),
        "warnings": outcome.get("warnings", []),
        "error": outcome.get("error"),
    }


def note_failure(sidecar: Path, record: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Write down that a scan failed, and remove what an earlier input or model made of it: it would mislead.

    Returns:
        "status" and "error".
    """
    outcome = {"status": "failed", "error": reason}
    for kind in (LABELS, SEGMENTATION, UNCERTAINTY):
        sidecar.with_name(f"{record['case']}{kind}").unlink(missing_ok=True)
    try:
        write_json(sidecar, {**record, **outcome})
    except ResourceError as error:
        outcome["error"] = f"{reason}; and this could not be written down: {error}"
    return outcome


def _reason(error: Exception, scan: Scan, out: Path) -> str:
    text = (
        str(error) if isinstance(error, VoxpoolError | OSError) else f"internal error: {type(error).__name__}: {error}"
    )
    return redact(text, known=[*scan.paths, *(path.parent for path in scan.paths), out])


def _wanted(options: PredictOptions, scan: Scan) -> list[str]:
    """Kinds of files to write for a scan."""
    kinds = {LABELS: True, UNCERTAINTY: options.uncertainty, SEGMENTATION: options.dicom_seg and scan.is_dicom}
    return [kind for kind, wanted in kinds.items() if wanted]


def _read(scan: Scan, options: PredictOptions) -> list[Volume]:
    if scan.is_dicom:
        return [read_dicom(scan.paths[0], uid=options.series)]
    return [
        read_volume(
            path,
            assume_affine=options.assume_affine,
            prefer=options.prefer,
            volume=options.volume,
            nan_to_zero=options.nan_to_zero,
            max_gb=options.max_gb,
        )
        for path in scan.paths
    ]


def _segment(
    scan: Scan, outputs: Mapping[str, Path], options: PredictOptions, progress: Progress | None
) -> dict[str, Any]:
    """Write the labels, and what else is wanted; return what the JSON file tells."""
    segmenter = load_segmenter(options.model, options.device)
    start = time.perf_counter()
    volumes = _read(scan, options)
    read = time.perf_counter() - start
    found = segmenter.segment(volumes, tile=options.tile, convention=options.convention, progress=progress)
    segmented = time.perf_counter()
    like = volumes[0]
    write_volume(outputs[LABELS], found.labels, like=like)
    if UNCERTAINTY in outputs and found.segments is not None and found.uncertainty is not None:
        percent = np.append(np.rint(100 * found.uncertainty), 0).astype(np.uint8)  # the last is that of no supervoxel
        write_volume(outputs[UNCERTAINTY], percent[found.segments], like=like)
    if SEGMENTATION in outputs:
        algorithm = f"voxpool {segmenter.info.net}"
        write_segmentation(
            outputs[SEGMENTATION], found.labels, like, label_names=found.label_names, algorithm=algorithm
        )
    stages = {"read": read, **found.stages, "write": time.perf_counter() - segmented}
    return {
        **_outcome(found, like),
        "device": str(segmenter.device),
        "threads": torch.get_num_threads(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in stages.items()},
    }


def _outcome(found: Segmentation, volume: Volume) -> dict[str, Any]:
    warnings = [f"no voxel of {name} was found" for name, ml in found.volumes_ml.items() if ml == 0]
    warnings += found.warnings
    return {
        "status": "warn" if warnings else "ok",
        "warnings": warnings,
        "notices": [*volume.notices, *found.notices],
        "volumes_ml": {name: round(ml, 3) for name, ml in found.volumes_ml.items()},
        "label_names": {str(label): name for label, name in found.label_names.items()},
        "confidence": {name: round(share, 4) for name, share in found.confidence.items()},
        "quality": round(found.quality, 4),
        "num_segments": found.num_segments,
        "note": "research use only, not a medical device",
    }


def _done_before(sidecar: Path, outputs: Mapping[str, Path], record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run found, if it was of the same input and model, and its files are still what it wrote."""
    if not sidecar.exists():
        return None
    try:
        old: dict[str, Any] = read_json(sidecar)
        sums = old["outputs"]
        whole = all(file_sha256(path) == sums.get(path.name) for path in outputs.values())
        same = all(old.get(key) == value for key, value in record.items())
    except (InputError, OSError, KeyError, AttributeError, TypeError):  # gone, damaged, or written by something else
        return None
    return old if whole and same and old.get("status") in DONE else None
