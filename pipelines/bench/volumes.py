"""Volumes with a truth to make supervoxels of: a hard phantom, and a user's own images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from voxpool.data import Dataset
from voxpool.io import read_labels, read_volume

SPACE = (160, 192, 160)
QUICK_SPACE = (24, 28, 20)
_TISSUES = np.array([0.1, 0.4, 0.65, 0.9], np.float32)
_FEATURE = 4.0  # mm, how far the tissues of the phantom keep together
_BLUR = 0.7
_NOISE = 0.05
_PERCENTILES = (1, 99)
_STRIPPED = 0.9


@dataclass(frozen=True)
class BenchVolume:
    """What every generator gets.

    Attributes:
        title: Its name in tables.
        image: (D, H, W) float32; the 1st percentile is 0 and the 99th 1, beyond which it is clipped, so that one
            compactness means the same to all.
        labels: (D, H, W) true labels, 0..L-1.
        spacing: Voxel size in mm.
        mask: Where segments are wanted, or None for everywhere.
    """

    title: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    mask: np.ndarray | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels that get a segment."""
        return int(self.image.size if self.mask is None else self.mask.sum())

    @cached_property
    def on_gpu(self) -> tuple[Any, Any]:
        """Image and mask as tensors on the current CUDA device."""
        import torch

        mask = None if self.mask is None else torch.from_numpy(self.mask).cuda()
        return torch.from_numpy(self.image).cuda(), mask


def phantoms(space: Sequence[int]) -> Iterator[BenchVolume]:
    """Four tissues with curved borders, blurred and noisy: as it is, in a mask, and with thick slices."""
    image, labels = _tissues(space, (1.0, 1.0, 1.0))
    yield BenchVolume("phantom", image, labels)
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in space), indexing="ij", sparse=True)
    yield BenchVolume("phantom, masked", image, labels, mask=sum(p**2 for p in places) < 0.8)
    thick = (2.5, 1.0, 1.0)
    yield BenchVolume("phantom, 2.5 x 1 x 1 mm", *_tissues(space, thick), thick)


def _tissues(space: Sequence[int], spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reach = [_FEATURE / mm for mm in spacing]
    fields = [ndimage.gaussian_filter(rng.standard_normal(space, dtype=np.float32), reach) for _ in _TISSUES]
    labels = np.argmax(fields, axis=0)
    image = ndimage.gaussian_filter(_TISSUES[labels], [_BLUR / mm for mm in spacing])
    return _scaled(image + _NOISE * rng.standard_normal(space, dtype=np.float32)), labels


def _scaled(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, _PERCENTILES)
    return np.ascontiguousarray(np.clip((image - low) / (high - low), 0, 1), np.float32)


def volumes_of(dataset: Dataset, number: int) -> Iterator[BenchVolume]:
    """The first cases of a data set with labels: whole, and, where the skull is stripped, within the brain."""
    for case in dataset.cases[:number]:
        assert case.labels is not None  # open_dataset left out the others
        volume, labels = read_volume(case.images[0]), read_labels(case.labels).array
        raw, spacing = volume.array, tuple(float(mm) for mm in volume.geometry.spacing)
        image = _scaled(raw)
        yield BenchVolume(case.id, image, labels, spacing)
        mask = np.ascontiguousarray(raw > raw.min())
        if mask.mean() < _STRIPPED:
            yield BenchVolume(f"{case.id}, masked", image, labels, spacing, mask)
