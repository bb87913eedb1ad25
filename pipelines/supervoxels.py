"""Supervoxels of one volume: a label map, its measures and a picture."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import voxpool
from voxpool.data.foreground import foreground_mask
from voxpool.errors import InputError, UsageError
from voxpool.io import Volume, atomic_path, read_labels, read_volume, write_json, write_volume
from voxpool.io.nifti_header import EXTENSIONS
from voxpool.supervoxels import measure_segments, slic
from voxpool_pipelines.console import task
from voxpool_pipelines.report.png import palette_png

_ZOOM = 3.0  # pixels per mm
_MOST_PIXELS = 1200  # along one side of a plane
_GAP = 6
_LEVELS = 200
_BORDER = (255, 200, 40)


def write_supervoxels(
    source: Path,
    out: Path,
    *,
    n_segments: int,
    compactness: float,
    masked: bool,
    labels: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Make supervoxels of a volume and write them, with measures and a picture beside them.

    Args:
        source: Volume.
        out: Label map to write, `.nii` or `.nii.gz`: 1..K, 0 outside the mask, on the grid of the volume. Measures and
            picture take its name, with `.json` and `.png`.
        n_segments: Approximate number of supervoxels.
        compactness: As in `voxpool.slic`.
        masked: Whether to keep to the brain of a skull-stripped volume, or the head of a raw one.
        labels: True labels, by which accuracy and oracle are measured; None for none.
        console: Shows progress and measures.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: If a file cannot be used.
        UsageError: If the name of the output or an option does not fit.
        ResourceError: If a file cannot be written.
    """
    stem = next((out.name.removesuffix(suffix) for suffix in EXTENSIONS if out.name.endswith(suffix)), None)
    if not stem:
        raise UsageError(f"--out must name a label map that ends in .nii.gz or .nii, got {out.name!r}")
    if out.resolve() == source.resolve():
        raise UsageError(f"--out is the input itself, {out.name}; name another file")
    volume = read_volume(source)
    truth = None if labels is None else _truth(labels, volume)
    mask = foreground_mask(volume.array) if masked else None
    spacing = volume.geometry.spacing
    start = time.perf_counter()
    with task(console, "supervoxels") as update:
        segments = slic(
            volume.array,
            n_segments,
            compactness=compactness,
            spacing=spacing,
            mask=mask,
            progress=lambda share: update(share, ""),
        )
    seconds = time.perf_counter() - start
    quality = measure_segments(segments, image=volume.array, labels=truth, spacing=spacing)
    facts = {
        "source": source.name,
        "n_segments": n_segments,
        "compactness": compactness,
        "masked": masked,
        "seconds": round(seconds, 3),
        "quality": {name: value for name, value in asdict(quality).items() if value is not None},
        "voxpool": voxpool.__version__,
        "use": "research use only",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_volume(out, segments + 1, volume)
    with atomic_path(out.with_name(f"{stem}.png")) as part:
        part.write_bytes(draw_supervoxels(volume, segments))
    write_json(out.with_name(f"{stem}.json"), facts)
    console.print(_summary(facts), highlight=False, markup=False, soft_wrap=True)
    console.print(f"{out}, {stem}.json, {stem}.png", highlight=False, markup=False, soft_wrap=True)
    return facts


def _truth(path: Path, volume: Volume) -> np.ndarray:
    found = read_labels(path)
    if not found.geometry.matches(volume.geometry):
        raise InputError(
            f"{path.name} has the grid {found.geometry.shape}, the volume {volume.geometry.shape}, or lies elsewhere "
            "in space; give labels on the grid of the volume"
        )
    return np.asarray(found.array)


def _summary(facts: dict[str, Any]) -> str:
    quality = facts["quality"]
    parts = [
        f"{quality['num_segments']} supervoxels in {facts['seconds']:.2f} s",
        f"median size {quality['sizes']['median']:g} voxels",
        f"explained variation {quality['explained_variation']:.3f}",
    ]
    if "accuracy" in quality:
        oracle = quality["oracle_dice"][1:]
        parts += [f"ASA {quality['accuracy']:.4f}", f"oracle Dice {np.nanmean(oracle):.3f}"]
    return ", ".join(parts)


def draw_supervoxels(volume: Volume, segments: np.ndarray) -> bytes:
    """Draw an axial, a coronal and a sagittal slice through the middle of the segments, with their borders.

    The patient's right is on the left, anterior and superior are on top; in the sagittal slice anterior is on the left.

    Args:
        volume: The image.
        segments: Segment ids on its grid; -1 outside.

    Returns:
        A PNG file's bytes.
    """
    image, ids = volume.geometry.to_ras(volume.array), volume.geometry.to_ras(segments)
    spacing = np.asarray(volume.geometry.ras().spacing)
    low, high = np.percentile(image, [0.5, 99.5])
    grey = np.clip((image - low) / max(float(high - low), 1e-12), 0, 1)
    levels = 1 + np.round((_LEVELS - 1) * grey).astype(np.uint8)
    inside = np.argwhere(ids >= 0)
    middle = np.round(inside.mean(axis=0)).astype(int)
    zoom = min(_ZOOM, _MOST_PIXELS / float((np.array(ids.shape) * spacing).max()))
    planes = [_plane(levels, ids, axis, int(middle[axis]), spacing * zoom) for axis in (2, 1, 0)]
    height = max(len(plane) for plane in planes)
    row = []
    for plane in planes:
        spare = height - len(plane)
        row += [np.pad(plane, ((spare // 2, spare - spare // 2), (0, _GAP)), constant_values=1)]
    greys = [(round(255 * i / (_LEVELS - 1)),) * 3 for i in range(_LEVELS)]
    return palette_png(np.hstack(row)[:, :-_GAP], [*greys, _BORDER])


def _plane(levels: np.ndarray, ids: np.ndarray, axis: int, at: int, pixels: np.ndarray) -> np.ndarray:
    """One slice, enlarged to `pixels` per voxel; the border colour where the segment changes."""
    across, down = (other for other in range(3) if other != axis)
    columns, rows = (
        np.arange(max(1, round(ids.shape[a] * pixels[a])))[::-1]
        * ids.shape[a]
        // max(1, round(ids.shape[a] * pixels[a]))
        for a in (across, down)
    )
    grey = np.take(levels, at, axis)[np.ix_(columns, rows)].T.copy()
    segment = np.take(ids, at, axis)[np.ix_(columns, rows)].T
    border = np.zeros(segment.shape, bool)
    border[:-1] |= segment[:-1] != segment[1:]
    border[:, :-1] |= segment[:, :-1] != segment[:, 1:]
    grey[border] = _LEVELS + 1
    return np.ascontiguousarray(grey)
