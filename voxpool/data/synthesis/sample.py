"""One synthetic head: the image as a network gets it, and the classes of its voxels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from voxpool.data.head_labels import BACKGROUND, CLASS_OF, OUTER_CSF, STRUCTURES
from voxpool.data.synthesis.appearance import (
    draw_brightness,
    draw_gamma,
    draw_noise,
    draw_resolution,
    draw_shading,
    paint,
)
from voxpool.data.synthesis.config import SynthesisConfig
from voxpool.data.synthesis.head_map import HeadMap
from voxpool.data.synthesis.random import chance, integer, uniform
from voxpool.data.synthesis.shape import draw_shape

_SAMPLE = 7  # every how many-th voxel the percentiles are taken from
_NEAR_MM = 8  # outer CSF farther from the brain is in the neck or in an eye


@dataclass(frozen=True)
class SyntheticHead:
    """An image and its truth.

    Attributes:
        image: Normalised intensities, float32, (D, H, W).
        labels: Class ids of `voxpool.data.head_labels.CLASSES`, uint8, (D, H, W).
        mask: Head, or brain where it is stripped, (D, H, W).
    """

    image: Tensor
    labels: Tensor
    mask: Tensor


def synthesise(head: HeadMap, config: SynthesisConfig, seed: int, *, shape_seed: int | None = None) -> SyntheticHead:
    """Draw a new image of a new head.

    Args:
        head: Label map.
        config: How different it may be.
        seed: What is drawn; the same seed gives the same image on one kind of device.
        shape_seed: Seed of the shape alone, where several images of one head are wanted.

    Returns:
        The image and its truth, on the device of the map.
    """
    structures = draw_structures(head, config, seed if shape_seed is None else shape_seed)
    return draw_image(structures, config, seed)


def draw_structures(head: HeadMap, config: SynthesisConfig, seed: int) -> Tensor:
    """A new head: index into `STRUCTURES`, uint8, (*size / grid)."""
    return draw_shape(head, config, _generator(seed, 0))


def draw_image(structures: Tensor, config: SynthesisConfig, seed: int) -> SyntheticHead:
    """An image of a head that is there: see `synthesise`."""
    generator = _generator(seed, 1)
    kind = int(torch.multinomial(torch.tensor(config.contrasts), 1, generator=generator))
    brightness = draw_brightness(generator, ("t1", "t2", "any")[kind])
    factor = config.voxel // config.grid
    image = paint(structures, brightness, factor)
    spread = torch.rand(len(STRUCTURES), generator=generator) * uniform(generator, 0, config.texture)
    grain = torch.randn(image.shape, generator=generator).to(image.device)
    labels = class_labels(structures, factor, config.voxel)
    # the texture of the structure at the voxel's middle does for its whole
    middle = structures[tuple(slice(factor // 2, None, factor) for _ in range(3))]
    image = (image + spread.to(image.device)[middle.int()] * grain).clamp_min_(0)
    image = draw_gamma(image, generator, config.gamma)
    mask = middle > 0
    stripped = chance(generator, config.stripped)
    if stripped:
        mask = brain_mask(labels, integer(generator, 0, max(1, 4 // config.voxel)))
        image = image * mask
        labels = labels * mask
    image = draw_shading(image, generator, config.shading)
    image = draw_resolution(image, generator, voxel=config.voxel, thickest=config.thickest)
    image = draw_noise(image, generator, config.noise)
    if stripped and chance(generator, 0.7):
        image = image * mask  # most tools leave exact zeros outside
    return SyntheticHead(normalise(image, mask), labels, mask)


def class_labels(structures: Tensor, factor: int, voxel: int) -> Tensor:
    """Class of what lies in the middle of every voxel, uint8; outer CSF only where the brain is near.

    Args:
        structures: Index into `STRUCTURES`, `factor` along each side of a voxel.
        factor: How many.
        voxel: Side of a voxel in mm.
    """
    middle = structures[tuple(slice(factor // 2, None, factor) for _ in range(3))]
    labels = torch.from_numpy(CLASS_OF).to(middle.device)[middle.int()]
    near = grow((labels != BACKGROUND) & (labels != OUTER_CSF), _NEAR_MM // voxel)
    return torch.where((labels == OUTER_CSF) & ~near, labels.new_tensor(BACKGROUND), labels)


def brain_mask(labels: Tensor, grown: int) -> Tensor:
    """What a skull-stripping tool would keep: the brain and the CSF in its sulci, give or take some voxels."""
    tissue = (labels != BACKGROUND) & (labels != OUTER_CSF)
    closed = ~grow(~grow(tissue, 2), 2)
    return grow(closed | tissue, grown)


def grow(mask: Tensor, voxels: int) -> Tensor:
    """Dilate a mask by a cube of 2 * voxels + 1."""
    for axis in range(3):
        length = mask.shape[axis]
        grown = mask.clone()
        for step in range(1, voxels + 1):
            grown.narrow(axis, step, length - step).logical_or_(mask.narrow(axis, 0, length - step))
            grown.narrow(axis, 0, length - step).logical_or_(mask.narrow(axis, step, length - step))
        mask = grown
    return mask


def normalise(image: Tensor, mask: Tensor) -> Tensor:
    """0 at the 0.5th percentile inside a mask, 1 per standard deviation, as `NormalizeInsideMaskd` does."""
    inside = image[mask][::_SAMPLE]
    ranked = inside.sort().values
    low, high = (ranked[round(share * (len(ranked) - 1))] for share in (0.005, 0.995))
    clipped = image.clamp(low, high)
    return (clipped - low) / inside.clamp(low, high).std().clamp_min(1e-6)


def _generator(seed: int, stream: int) -> Generator:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))
