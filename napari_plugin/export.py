"""A reviewed segmentation as files: each is written whole or not at all, and read back before it counts."""

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_voxpool.session import SegmentationSession
from voxpool import __version__
from voxpool.errors import ResourceError
from voxpool.io import read_labels, stem, write_json, write_segmentation, write_text, write_volume

NOTE = "research use only, not a medical device"


def export_labels(session: SegmentationSession, path: Path) -> None:
    """Write the labels as NIfTI on the scan's own grid, and beside them `<name>.labels.json` with the classes' names.

    Raises:
        ResourceError: If what was written does not read back as it should.
    """
    volume = session.shown.volume
    labels = session.shown.store(session.correction.labels)
    write_volume(path, labels, like=volume)
    back = read_labels(path)
    if not np.array_equal(back.array, labels) or not back.geometry.matches(volume.geometry):
        raise ResourceError(f"{path} does not read back as it was written; check the disk and export again")
    names = {str(label): name for label, name in session.about.label_names.items()}
    write_json(path.with_name(f"{stem(path.name)}.labels.json"), names)


def export_dicom(session: SegmentationSession, path: Path) -> None:
    """Write the labels as DICOM SEG beside the series that was segmented.

    Raises:
        UsageError: If the scan is no DICOM series, or nothing is labelled.
        InputError: If the series is gone.
        ResourceError: If highdicom is missing, or what was written does not read back as it should.
    """
    write_segmentation(
        path,
        session.shown.store(session.correction.labels),
        session.shown.volume,
        label_names=session.about.label_names,
        algorithm=session.about.model,
    )


def export_report(session: SegmentationSession, path: Path) -> None:
    """Write volumes, scores and where they come from: JSON, or CSV with one row per tissue where the name says so.

    Raises:
        ResourceError: If what was written does not read back as it should.
    """
    facts = report(session)
    if path.suffix.lower() != ".csv":
        write_json(path, facts)
        same = json.loads(path.read_text(encoding="utf-8"))["tissues"] == facts["tissues"]
    else:
        text = _as_csv(facts)
        write_text(path, text)
        same = path.read_text(encoding="utf-8") == text
    if not same:
        raise ResourceError(f"{path} does not read back as it was written; check the disk and export again")


def report(session: SegmentationSession) -> dict[str, Any]:
    """What a reader of the result must know; the names of patients and folders are not in it."""
    about, correction = session.about, session.correction
    source = session.shown.volume.path
    return {
        "scan": source.name if source else None,
        "scan_sha256": about.scan,
        "model": about.model,
        "model_sha256": about.model_sha256,
        "voxpool": __version__,
        "segmented": datetime.fromtimestamp(about.started, UTC).isoformat(timespec="seconds"),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "edits": correction.edits,
        "quality_before_edits": round(about.quality, 4),
        "warnings": list(about.warnings),
        "tissues": [
            {
                "label": row.label,
                "name": row.name,
                "voxels": row.voxels,
                "volume_ml": round(row.ml, 3),
                "share": round(row.share, 4),
                "dice": None if row.dice is None or np.isnan(row.dice) else round(row.dice, 4),
            }
            for row in correction.rows()
        ],
        "note": NOTE,
    }


def _as_csv(facts: Mapping[str, Any]) -> str:
    """One row per tissue; what holds for all of them is in every row."""
    common = {key: facts[key] for key in ("scan", "model", "model_sha256", "voxpool", "edits", "exported", "note")}
    out = io.StringIO()
    writer = csv.DictWriter(out, [*facts["tissues"][0], *common], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**tissue, **common} for tissue in facts["tissues"])
    return out.getvalue()
