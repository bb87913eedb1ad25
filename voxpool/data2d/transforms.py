"""What is done to images: colours to numbers, the papers' augmentations, superpixels."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from voxpool.data2d.classes import IGNORED
from voxpool.supervoxels import slic

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0 to 1: what weights trained on it expect."""


@dataclass(frozen=True)
class Augmentation:
    """How training images may differ, uniformly drawn (recipe of the comparison of ENet, R2U-Net and PSPNet).

    Attributes:
        scale: Smallest and largest factor of size.
        degrees: Largest rotation to either side.
        flip: Share of mirrored images.
        blur: Share of blurred images.
        blur_sigma: Largest standard deviation of the blur in pixels.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    degrees: float = 10.0
    flip: float = 0.5
    blur: float = 0.5
    blur_sigma: float = 1.0


def to_tensor(image: np.ndarray) -> Tensor:
    """Colours (H, W, 3) uint8 as (3, H, W) float32, mean 0 and standard deviation 1 over ImageNet."""
    colours = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (colours - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(SD).view(3, 1, 1)


def augment(
    image: Tensor, labels: Tensor, crop: tuple[int, int], rng: np.random.Generator, config: Augmentation
) -> tuple[Tensor, Tensor]:
    """A crop of an image, scaled, turned, mirrored and blurred at random.

    All but the blur is one resampling: bilinear for the image, nearest for the labels. Where the crop leaves the
    image it is 0, the mean colour, and its labels are ignored.

    Args:
        image: (3, H, W), see `to_tensor`.
        labels: (H, W), uint8.
        crop: Size of the crop, (h, w).
        rng: Says what is drawn; the same state gives the same crop.
        config: How much may be done.

    Returns:
        Image (3, h, w) and labels (h, w), uint8.
    """
    size = np.array(labels.shape, float)
    factor = math.exp(rng.uniform(*np.log(config.scale)))
    angle = math.radians(rng.uniform(-config.degrees, config.degrees))
    mirror = -1.0 if rng.random() < config.flip else 1.0
    seen = np.array(crop) / factor  # of the image, in its own pixels
    # a crop smaller than the image lies anywhere inside, a larger one lies around it
    room = np.abs(size - seen) / 2
    centre = rng.uniform(-room, room)
    sigma = rng.uniform(0, config.blur_sigma) if rng.random() < config.blur else 0.0

    # from the crop's places, -1 to 1, to the image's; x comes first in torch
    cos, sin = math.cos(angle), math.sin(angle)
    half = seen[::-1] / 2
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag(half * [mirror, 1.0])
    matrix = np.hstack([turn, centre[::-1, None]]) / (size[::-1, None] / 2)
    theta = torch.from_numpy(matrix).float()[None]
    grid = functional.affine_grid(theta, [1, 1, *crop], align_corners=False)
    cut = functional.grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    # 0 outside means ignored: the ids are those after it
    shifted = (labels.float() + 1)[None, None]
    ids = functional.grid_sample(shifted, grid, mode="nearest", align_corners=False)[0, 0].round().long() - 1
    return _blurred(cut, sigma), torch.where(ids < 0, IGNORED, ids).to(torch.uint8)


def superpixels(image: Tensor, pixels_each: float, compactness: float) -> Tensor:
    """SLIC superpixels of an image.

    Args:
        image: (3, H, W), colours on any one scale.
        pixels_each: About how many pixels one has.
        compactness: Weight of space against colour.

    Returns:
        Ids 0 to K - 1, (H, W), int32.
    """
    count = max(1, round(image[0].numel() / pixels_each))
    ids: Tensor = slic(image.cpu(), count, compactness=compactness, channel_axis=0)
    return ids


def _blurred(image: Tensor, sigma: float) -> Tensor:
    if sigma < 0.1:  # less than this changes nothing
        return image
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).view(1, 1, -1)
    padded = functional.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, weights[..., None]), weights[:, :, None])[:, 0]
