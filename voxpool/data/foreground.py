"""Where the head or brain is in an image."""

import numpy as np
from scipy import ndimage

from voxpool.errors import InputError

# a skull-stripped volume has one exact background value in a large part of its voxels; noise in air never does
STRIPPED_SHARE = 0.1
HISTOGRAM_BINS = 256


def foreground_mask(image: np.ndarray) -> np.ndarray:
    """Brain of a skull-stripped image, or head of a raw one.

    Where at least a tenth of the voxels share the lowest value the image counts as skull-stripped, and all other
    voxels are the foreground. Otherwise Otsu's threshold decides, with the largest component and its holes.

    Args:
        image: Intensities, (*S), finite.

    Returns:
        Boolean mask, (*S).

    Raises:
        InputError: If the image is constant.
    """
    low, high = image.min(), image.max()
    if low == high:
        raise InputError(
            f"the image is constant: all {image.size} voxels are {low:g}, so nothing can be normalised; check the file"
            " (E116)"
        )
    stripped = image != low
    if np.count_nonzero(stripped) <= (1 - STRIPPED_SHARE) * image.size:
        return stripped
    return _largest_filled(image > _otsu_threshold(image))


def _otsu_threshold(image: np.ndarray) -> float:
    # outliers would squeeze all tissue into a few bins
    low, high = np.percentile(image, [0.1, 99.9])
    counts, edges = np.histogram(np.clip(image, low, high), bins=HISTOGRAM_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = image.size - below
    mass = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(centres[np.nanargmax(between[:-1])])


def _largest_filled(mask: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(mask)
    if count > 1:
        mask = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    return ndimage.binary_fill_holes(mask)
