"""Other scans of the same head: what a model of any contrast must bear."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from voxpool.io import Geometry, Volume

Labelled = tuple[Volume, np.ndarray]
"""An image and its true labels on the same grid."""

_SHADES = 3.0
_NOISE = 0.1
_SEED = 7
# brightness of a T1 (0 darkest, 1 brightest tissue) and what a T2 shows instead
_T1, _T2 = (0.0, 0.25, 0.6, 0.8, 1.0), (1.0, 0.9, 0.6, 0.4, 0.35)


def inverted(volume: Volume, labels: np.ndarray) -> Labelled:
    """Bright where it was dark, inside the head."""
    return _painted(volume, lambda share: 1 - share), labels


def t2_like(volume: Volume, labels: np.ndarray) -> Labelled:
    """Fluid bright, grey matter brighter than white."""
    return _painted(volume, lambda share: np.interp(share, _T1, _T2)), labels


def shaded(volume: Volume, labels: np.ndarray) -> Labelled:
    """Three times as bright at one corner as at the opposite one."""
    axes = [np.linspace(0, 1 / 3, size) for size in volume.array.shape]
    field = _SHADES ** sum(np.meshgrid(*axes, indexing="ij"))
    return Volume((volume.array * field).astype(np.float32), volume.geometry), labels


def noisy(volume: Volume, labels: np.ndarray) -> Labelled:
    """Rician noise of a tenth of the brightest tissue."""
    rng = np.random.default_rng(_SEED)
    deviation = _NOISE * _brightest(volume.array)
    real, imaginary = rng.normal(0, deviation, (2, *volume.array.shape))
    array = np.hypot(volume.array + real, imaginary).astype(np.float32)
    return Volume(np.where(volume.array > 0, array, 0).astype(np.float32), volume.geometry), labels


def thick(volume: Volume, labels: np.ndarray) -> Labelled:
    """Slices five times as thick, along the axis that runs up."""
    up = int(np.argmax(np.abs(volume.geometry.affine[2, :3])))
    return _coarser(volume, labels, tuple(5 if axis == up else 1 for axis in range(3)))


def coarse(volume: Volume, labels: np.ndarray) -> Labelled:
    """Voxels twice as large along every axis."""
    return _coarser(volume, labels, (2, 2, 2))


DEGRADATIONS: dict[str, Callable[[Volume, np.ndarray], Labelled]] = {
    "as it is": lambda volume, labels: (volume, labels),
    "contrast inverted": inverted,
    "T2-like": t2_like,
    "shading x 3": shaded,
    "noise 10 %": noisy,
    "slices x 5": thick,
    "voxels x 2": coarse,
}
"""By the name that a table shows."""


def orientations(volume: Volume) -> Iterator[tuple[Volume, Callable[[np.ndarray], np.ndarray]]]:
    """The same scan stored along every order and direction of its axes, 48 in all.

    Yields:
        The volume, and a function that brings an array on its grid back to that of the original.
    """
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            flipped = tuple(axis for axis, flip in enumerate(flips) if flip)
            array = np.flip(volume.array.transpose(order), flipped)
            move = np.zeros((4, 4))  # new index to old index
            move[3, 3] = 1
            for axis, old in enumerate(order):
                move[old, axis] = -1 if flips[axis] else 1
                move[old, 3] = array.shape[axis] - 1 if flips[axis] else 0

            def back(
                found: np.ndarray, order: tuple[int, ...] = order, flipped: tuple[int, ...] = flipped
            ) -> np.ndarray:
                return np.flip(found, flipped).transpose(np.argsort(order))

            geometry = Geometry(array.shape, volume.geometry.affine @ move)
            yield Volume(np.ascontiguousarray(array), geometry), back


def _brightest(array: np.ndarray) -> float:
    return float(np.percentile(array[array > 0], 99))


def _painted(volume: Volume, brightness: Callable[[np.ndarray], np.ndarray]) -> Volume:
    """Another brightness of what is not 0, as a share of the brightest."""
    share = np.clip(volume.array / _brightest(volume.array), 0, 1)
    array = np.where(volume.array > 0, 1 + 999 * brightness(share), 0)
    return Volume(array.astype(np.float32), volume.geometry)


def _coarser(volume: Volume, labels: np.ndarray, factors: tuple[int, ...]) -> Labelled:
    """Means of blocks of voxels, and the label that most of each have."""
    shape = tuple(size // factor for size, factor in zip(labels.shape, factors, strict=True))
    inside = tuple(slice(0, size * factor) for size, factor in zip(shape, factors, strict=True))
    split = [number for pair in zip(shape, factors, strict=True) for number in pair]
    image = volume.array[inside].reshape(split).mean((1, 3, 5))
    blocks = labels[inside].reshape(split)
    votes = np.stack([(blocks == label).sum((1, 3, 5)) for label in range(int(labels.max()) + 1)])
    affine = volume.geometry.affine.copy()
    # the middle of the first block
    affine[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    affine[:3, :3] *= np.array(factors)
    return Volume(image.astype(np.float32), Geometry(shape, affine)), votes.argmax(0)
