"""Preprocessed cases on disk, memory-mapped, so that a cohort of any size can be trained on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxpool.data.cases import Case
from voxpool.data.transforms import (
    PreprocessConfig,
    SupervoxelConfig,
    make_segments,
    prepare,
    preprocessing,
    to_meta_tensor,
)
from voxpool.io import atomic_path, read_labels, read_volume, write_json


@dataclass(frozen=True)
class TrainingCase:
    """A preprocessed case, its arrays memory-mapped.

    Attributes:
        case_id: The case's id.
        image: Normalised intensities, (C, *S), float32.
        labels: Class ids, (*S), uint8.
        mask: Brain, (*S), boolean.
        spacing: Voxel size in mm, one per axis.
        folder: Where its arrays lie.
        segments: Supervoxel ids, (*S) or of two levels (2, *S), int32, or None.
    """

    case_id: str
    image: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, ...]
    folder: Path
    segments: np.ndarray | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors with a channel axis, sharing memory, as `augmentation` wants them."""
        tensors = {"image": _shared(self.image), "labels": _shared(self.labels)[None]}
        if self.segments is not None:
            tensors["segments"] = _shared(self.segments).reshape(-1, *self.labels.shape)
        return tensors


def _shared(array: np.ndarray) -> Tensor:
    # the maps are opened copy-on-write, so torch may have a writable view of them
    return torch.from_numpy(np.asarray(array))


def case_key(case: Case, config: PreprocessConfig, *, stride: int) -> str:
    """Name of a cached case: its id, and a hash of files and settings, so that a change makes a new one."""
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in (*case.images, case.labels) if path]
    text = json.dumps([files, config.as_dict(), stride, 1])
    return f"{case.id}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cache_case(case: Case, config: PreprocessConfig, *, stride: int, folder: Path) -> TrainingCase:
    """Preprocess a case with labels, or read it from the cache.

    Args:
        case: Case with labels.
        config: Preprocessing.
        stride: What every spatial size is padded to a multiple of.
        folder: The cache.

    Returns:
        The case, memory-mapped, without segments.
    """
    place = folder / case_key(case, config, stride=stride)
    if not (place / "case.json").exists():
        _write_case(case, config, stride, place)
    meta = json.loads((place / "case.json").read_text(encoding="utf-8"))
    return TrainingCase(
        case.id,
        _mapped(place / "image.npy"),
        _mapped(place / "labels.npy"),
        _mapped(place / "mask.npy"),
        tuple(meta["spacing"]),
        place,
    )


def with_segments(case: TrainingCase, config: SupervoxelConfig) -> TrainingCase:
    """The case with its supervoxels, made once and kept beside its other arrays.

    Args:
        case: Preprocessed case.
        config: Method, number and compactness.

    Returns:
        The case with segments.
    """
    levels = f"-{config.per_coarse}" if config.per_coarse else ""
    path = case.folder / f"segments-{config.method}-{config.n_segments}-{config.compactness:g}{levels}.npy"
    if not path.exists():
        segments = make_segments(np.asarray(case.image), np.asarray(case.mask), config, spacing=case.spacing)
        _save_array(path, segments)
    return replace(case, segments=_mapped(path))


def _write_case(case: Case, config: PreprocessConfig, stride: int, place: Path) -> None:
    data = load_case(case.images, case.labels)
    data = prepare(preprocessing(config, stride=stride, labels=True), data)
    place.mkdir(parents=True, exist_ok=True)
    _save_array(place / "image.npy", np.asarray(data["image"], dtype=np.float32))
    _save_array(place / "labels.npy", np.asarray(data["labels"][0], dtype=np.uint8))
    _save_array(place / "mask.npy", np.asarray(data["mask"][0], dtype=bool))
    # written last: its presence says that the case is whole
    write_json(place / "case.json", {"spacing": [float(mm) for mm in data["image"].pixdim]})


def load_case(images: Sequence[Path], labels: Path | None) -> dict[str, Any]:
    """A case's files as MetaTensors with their affine: "image" (C, *S) and, where there are some, "labels" (1, *S)."""
    volumes = [read_volume(path) for path in images]
    affine = volumes[0].geometry.affine
    data = {"image": to_meta_tensor(np.stack([volume.array for volume in volumes]), affine)}
    if labels is not None:
        data["labels"] = to_meta_tensor(read_labels(labels).array, affine)
    return data


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as part, part.open("wb") as file:
        np.save(file, array)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="c")
