"""A brain-like phantom made of formulas: for tests, examples and benchmarks that need no file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxpool.errors import UsageError

_SIGNAL = np.array([0.0, 200.0, 450.0, 650.0], np.float32)  # BG, CSF, GM, WM
_NOISE = 40.0
_BIAS = 0.25
_SMALLEST_AXIS = 16


def phantom(
    shape: Sequence[int] = (64, 64, 64), *, seed: int = 0, spacing: Sequence[float] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make a skull-stripped, T1-like image of a made-up brain and its labels.

    A folded ellipsoid fills most of the grid: white matter inside a grey cortex, two ventricles beside the
    middle plane and a grey nucleus beside each. The image has a smooth bias field and Rician noise and is
    exactly 0 outside the brain.

    Args:
        shape: Voxels per axis, two or three axes of at least 16; the first axis runs from left to right.
        seed: Same seed, same phantom; another seed gives another brain.
        spacing: Voxel size in mm, one per axis; 1 mm unless given. The brain fills the grid
            and its cortex is as thick, in mm, along every axis.

    Returns:
        The image (float32) and the labels (uint8: 0 BG, 1 CSF, 2 GM, 3 WM), both of `shape`.

    Raises:
        UsageError: `shape` or `spacing` cannot be used.

    Example:
        >>> image, labels = phantom((32, 40, 32), seed=1)
        >>> labels.shape, int(labels.max())
        ((32, 40, 32), 3)
    """
    size, step = _checked(shape, spacing)
    rng = np.random.default_rng(seed)
    axes = [((np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(mm)) for n, mm in zip(size, step, strict=True)]
    position = np.meshgrid(*axes, indexing="ij", sparse=True)
    semi_axes = np.asarray(size) * step / 2 * rng.uniform(0.80, 0.88, len(size))
    labels = _labels(position, semi_axes, rng)
    return _image(labels, rng), labels


def _checked(shape: Sequence[int], spacing: Sequence[float] | None) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    size = tuple(int(n) for n in shape)
    if len(size) not in {2, 3} or min(size) < _SMALLEST_AXIS:
        raise UsageError(f"shape must have 2 or 3 axes of at least {_SMALLEST_AXIS} voxels, got {size}")
    step = np.ones(len(size)) if spacing is None else np.asarray(spacing, np.float64)
    if step.shape != (len(size),) or not (np.isfinite(step) & (step > 0)).all():
        raise UsageError(f"spacing must be {len(size)} positive numbers in mm, got {spacing}")
    return size, step


def _labels(
    position: Sequence[NDArray[np.float32]], semi_axes: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Classes by depth under a folded surface; `position` is mm from the centre, per axis."""
    scaled = [x / np.float32(a) for x, a in zip(position, semi_axes, strict=True)]
    radius = np.maximum(np.sqrt(sum(u**2 for u in scaled)), np.float32(1e-3))
    direction = [u / radius for u in scaled]
    # First-order distance to the ellipsoid: its level function over the length of its gradient.
    slope = np.sqrt(sum((d / np.float32(a)) ** 2 for d, a in zip(direction, semi_axes, strict=True)))
    folds = np.zeros_like(radius)
    for frequency in (7, 11, 16):
        wave = rng.normal(size=len(position))
        wave *= frequency / np.linalg.norm(wave)
        phase = rng.uniform(0, 2 * np.pi)
        folds += np.sin(sum(np.float32(k) * d for k, d in zip(wave, direction, strict=True)) + phase)

    depth = (1 - radius * (1 + np.float32(0.02) * folds)) / slope
    cortex = np.float32(semi_axes.min()) * (np.float32(0.17) + np.float32(0.04) * folds)
    labels = np.where(depth > 0, np.where(depth < cortex, 2, 3), 0).astype(np.uint8)

    for side in (-1, 1):
        for label, centre, half in (
            (2, (0.36, 0.05, 0.0), (0.13, 0.20, 0.20)),
            (1, (0.14, 0.0, 0.08), (0.10, 0.34, 0.18)),
        ):
            half_axes = np.asarray(half[: len(position)]) * semi_axes * rng.uniform(0.9, 1.15)
            middle = np.asarray(centre[: len(position)]) * semi_axes * np.array([side, 1, 1])[: len(position)]
            inside = (
                sum(
                    ((x - np.float32(m)) / np.float32(h)) ** 2
                    for x, m, h in zip(position, middle, half_axes, strict=True)
                )
                < 1
            )
            labels[inside] = label
    return labels


def _image(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Tissue signal times a random linear and quadratic field, with the noise of a magnitude image."""
    signal = _SIGNAL[labels]
    bias = np.zeros((1,) * labels.ndim, np.float32)
    for axis, n in enumerate(labels.shape):
        x = np.linspace(-1, 1, n, dtype=np.float32)
        line = rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * (x**2 - np.float32(1 / 3))
        bias = bias + line.astype(np.float32).reshape([-1 if k == axis else 1 for k in range(labels.ndim)])
    signal *= np.exp(np.float32(_BIAS) * bias / np.abs(bias).max())
    real = rng.standard_normal(labels.shape, np.float32) * np.float32(_NOISE) + signal
    imaginary = rng.standard_normal(labels.shape, np.float32) * np.float32(_NOISE)
    image: NDArray[np.float32] = np.hypot(real, imaginary)
    image[labels == 0] = 0
    return image
