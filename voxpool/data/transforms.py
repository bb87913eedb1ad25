"""MONAI transforms: from a volume as stored to what a network sees, and augmentation for training."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    Compose,
    CropForegroundd,
    DivisiblePadd,
    EnsureTyped,
    MapTransform,
    Orientationd,
    RandAdjustContrastd,
    RandFlipd,
    RandScaleIntensityd,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
    Transform,
)
from torch import Tensor

from voxpool.data.foreground import foreground_mask
from voxpool.data.intensity import IntensityStep, intensity_transforms
from voxpool.errors import UsageError, VoxpoolError
from voxpool.supervoxels import blocks, nest_segments, slic

MARGIN = 4
ROBUST_PERCENTILES = (0.5, 99.5)

Method = Literal["slic", "block"]


@dataclass(frozen=True)
class SupervoxelConfig:
    """How supervoxels are made from a preprocessed image.

    Attributes:
        method: "slic", or "block" for cubes (the paper's superpixels of infinite compactness).
        n_segments: Requested number of supervoxels inside the brain.
        compactness: Weight of distance against intensity; SLIC only.
        per_coarse: About how many of them one coarser supervoxel is made of, for a head of two levels; else None.
    """

    method: Method
    n_segments: int
    compactness: float = 0.1
    per_coarse: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PreprocessConfig:
    """How a volume becomes a network's input.

    Attributes:
        spacing: Working voxel size in mm per RAS axis, or None for each volume's own.
        crop_margin: Voxels kept around the foreground; None to keep the whole volume.
        keep_outside: Whether what lies outside the foreground stays; else it becomes 0. A threshold finds the
            foreground of a raw head, which may leave out what is dark.
        intensity: Steps that make the intensities, for a model of another program; None for robust ones.
    """

    spacing: tuple[float, float, float] | None = None
    crop_margin: int | None = MARGIN
    keep_outside: bool = False
    intensity: tuple[IntensityStep, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class ForegroundMaskd(Transform):
    """Add a boolean "mask" (1, *S) of the brain or head, found in the first channel of "image"."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the mask added."""
        image = data["image"]
        mask = torch.from_numpy(foreground_mask(image[0].numpy()))[None]
        return {
            **data,
            "mask": MetaTensor(mask, affine=image.affine) if isinstance(image, MetaTensor) else mask,
        }


class NormalizeInsideMaskd(MapTransform):
    """Robust intensities: 0 at the 0.5th percentile inside "mask", 1 per standard deviation, 0 outside.

    Values are clipped at the 0.5th and 99.5th percentile first, per channel. Outside the mask the image becomes 0,
    the value that convolutions and padding continue with, unless it is to be kept.

    Args:
        keys: Keys of the images, (C, *S).
        keep_outside: Whether what lies outside the mask is kept, scaled likewise.
    """

    def __init__(self, keys: KeysCollection, *, keep_outside: bool = False) -> None:
        super().__init__(keys)
        self.keep_outside = keep_outside

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the keys normalised."""
        result = dict(data)
        mask = data["mask"][0].numpy()
        for key in self.key_iterator(result):
            image = result[key]
            for channel in range(image.shape[0]):
                inside = image[channel].numpy()[mask]
                low, high = np.percentile(inside, ROBUST_PERCENTILES)
                deviation = float(np.clip(inside, low, high).std()) or 1.0
                scaled = (image[channel].clamp(float(low), float(high)) - float(low)) / deviation
                image[channel] = scaled if self.keep_outside else torch.where(data["mask"][0], scaled, 0.0)
            result[key] = image
        return result


class Supervoxelsd(MapTransform):
    """Add supervoxels of an image to the data.

    Args:
        keys: Key of the image, (C, *S); its channels together make the supervoxels.
        config: Method, number and compactness.
        segments_key: Key of the result: ids 0..K-1 and -1 outside the mask, int32, (1, *S).
        mask_key: Key of the boolean mask (1, *S) that SLIC fills. Cubes ignore it: they cover the whole grid.
        spacing: Voxel size in mm, where the image is no MetaTensor that knows it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        config: SupervoxelConfig,
        *,
        segments_key: str = "segments",
        mask_key: str = "mask",
        spacing: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(keys)
        if config.method not in ("slic", "block"):
            raise UsageError(f"supervoxel method must be slic or block, got {config.method!r}")
        self.config, self.segments_key, self.mask_key, self.spacing = config, segments_key, mask_key, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the segments added."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            spacing = self.spacing
            if spacing is None and isinstance(image, MetaTensor):
                spacing = tuple(float(mm) for mm in image.pixdim)
            mask = np.asarray(result[self.mask_key][0])
            segments = make_segments(np.asarray(image), mask, self.config, spacing=spacing)
            result[self.segments_key] = torch.from_numpy(segments).reshape(-1, *mask.shape)
        return result


def make_segments(
    image: np.ndarray, mask: np.ndarray, config: SupervoxelConfig, *, spacing: tuple[float, ...] | None
) -> np.ndarray:
    """Supervoxels of a preprocessed image as a network's head wants them.

    Args:
        image: Intensities, (C, *S).
        mask: Brain, (*S), boolean.
        config: Method, number and compactness.
        spacing: Voxel size in mm, one per axis; None for cubic voxels.

    Returns:
        Ids, int32, (*S): SLIC fills the mask (-1 outside). Cubes cover the whole grid, at the size that puts
        about `n_segments` of them into the mask: they know nothing of the image. With `per_coarse` (2, *S): the
        second map holds the coarser supervoxels, each a union of fine ones.
    """
    fine = _make_fine(image, mask, config, spacing=spacing)
    if config.per_coarse is None:
        return fine
    count = max(1, (int(fine.max()) + 1) // config.per_coarse)
    return np.stack([fine, np.asarray(nest_segments(fine, image, [count]).paint(0, fine))])


def _make_fine(
    image: np.ndarray, mask: np.ndarray, config: SupervoxelConfig, *, spacing: tuple[float, ...] | None
) -> np.ndarray:
    if config.method == "block":
        inside = max(1, int(np.count_nonzero(mask)))
        return blocks(mask.shape, n_segments=max(1, round(config.n_segments * mask.size / inside)), spacing=spacing)
    single = image.shape[0] == 1
    return slic(
        image[0] if single else image,
        min(config.n_segments, int(np.count_nonzero(mask))),
        compactness=config.compactness,
        spacing=spacing,
        mask=mask,
        channel_axis=None if single else 0,
    )


def preprocessing(config: PreprocessConfig, *, stride: int, labels: bool) -> Compose:
    """The transform from a volume as stored to a network's input.

    RAS orientation, working spacing, foreground mask, robust intensities (or those that the description names), crop
    to the foreground, padding at the end to a multiple of the network's stride.

    Args:
        config: Spacing, margin and intensities.
        stride: What every spatial size must be a multiple of.
        labels: Whether the data hold "labels" beside "image".

    Returns:
        Transform of {"image": MetaTensor (C, *S) float32 [, "labels": MetaTensor (1, *S)]}, which adds "mask". The
        affine says where the result lies; `voxpool.data.native.to_native` goes back by it.
    """
    keys = ["image", "labels", "mask"] if labels else ["image", "mask"]
    steps: list[Transform] = [
        Orientationd([key for key in keys if key != "mask"], axcodes="RAS", labels=None),
        # found before resampling, which would blur the brain's edge into the background
        ForegroundMaskd(),
    ]
    if config.spacing is not None:
        modes = ["bilinear" if key == "image" else "nearest" for key in keys]
        steps += [
            Spacingd(keys, pixdim=config.spacing, mode=modes, padding_mode="border"),
            CastToTyped("mask", dtype=torch.bool),
        ]
    if config.intensity is None:
        steps.append(NormalizeInsideMaskd("image", keep_outside=config.keep_outside))
    else:
        steps += intensity_transforms(config.intensity, "image")
    if config.crop_margin is not None:
        steps.append(
            CropForegroundd(keys, source_key="mask", margin=config.crop_margin, k_divisible=1, allow_smaller=True)
        )
    return Compose([*steps, DivisiblePadd(keys, k=stride, method="end")])


def prepare(transform: Compose, data: dict[str, Any]) -> dict[str, Any]:
    """Apply a transform; what it refuses is raised as it is, not wrapped as MONAI wraps it.

    Raises:
        InputError: If the image is constant.
    """
    try:
        return transform(data)
    except RuntimeError as error:
        if isinstance(error.__cause__, VoxpoolError):
            raise error.__cause__ from None
        raise


def augmentation(crop: tuple[int, ...], *, segments: bool) -> Compose:
    """Random crop, left-right flip, intensity scale and gamma of preprocessed training data.

    Seed it per iteration by `set_random_state`: a resumed training then sees what an uninterrupted one sees.

    Args:
        crop: Size of the crop in voxels; smaller volumes are padded at the end.
        segments: Whether the data hold "segments" beside "image" and "labels".

    Returns:
        Transform of {"image": (C, *S), "labels": (1, *S) [, "segments": (1, *S)]} tensors.
    """
    keys = ["image", "labels", "segments"] if segments else ["image", "labels"]
    return Compose(
        [
            RandSpatialCropd(keys, roi_size=crop, random_size=False),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            *(SpatialPadd(key, spatial_size=crop, method="end", value=-1 if key == "segments" else 0) for key in keys),
            # metadata would be carried through every operation of the training step
            EnsureTyped(keys, track_meta=False),
        ]
    )


def to_meta_tensor(array: np.ndarray, affine: np.ndarray) -> Tensor:
    """A (C, *S) MetaTensor of an array (*S) or (C, *S) with its affine, as `preprocessing` wants it."""
    channels = array if array.ndim == affine.shape[0] else array[None]
    # copies: MONAI works in place, and a volume's own affine is read-only
    return MetaTensor(torch.from_numpy(np.array(channels)), affine=torch.from_numpy(np.array(affine)))
