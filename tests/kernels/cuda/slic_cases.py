"""Volumes for the SLIC kernels, and what the CPU kernels make of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from voxpool.kernels import slic_cupy, slic_numba


@dataclass(frozen=True)
class Case:
    """A random volume with a grid.

    Attributes:
        shape: Of the volume.
        cells: Of the grid.
        channels: Of the image.
        kept: Share of the voxels that are in the mask.
        contrast: Of the image; at 0 it is constant.
        iterations: Numbers of rounds to assign voxels in.
        sizes: Fewest and most voxels of a segment, to connect by.
    """

    shape: tuple[int, int, int]
    cells: tuple[int, int, int]
    channels: int = 1
    kept: float = 1.0
    contrast: float = 1.0
    iterations: tuple[int, ...] = (1, 3)
    sizes: tuple[tuple[int, int], ...] = ((0, 10**6), (6, 10**6), (0, 7), (3, 12))


CASES = {
    "cells of one part": Case((9, 11, 37), (3, 3, 4)),
    "cells of several parts": Case((24, 26, 40), (1, 2, 2)),
    "two channels, half a mask": Case((10, 9, 35), (2, 3, 5), channels=2, kept=0.5),
    "sparse": Case((12, 12, 12), (4, 4, 4), kept=0.02),
    "flat": Case((30, 1, 41), (4, 1, 5)),
    "one voxel": Case((1, 1, 1), (1, 1, 1)),
    "constant": Case((8, 8, 8), (2, 2, 2), contrast=0.0),
}
SMALL = {
    "two channels": Case((3, 5, 34), (1, 2, 3), channels=2, kept=0.7, iterations=(2,), sizes=((0, 10**6), (3, 12)))
}
"""What goes through every kernel, in its form for two channels, with as few launches as can be."""

NAMES = sorted({name for channels in (1, 2) for name in slic_cupy.kernel_names(channels)})
"""The kernels that the cases need."""


def make(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
    """Image (C, D, H, W) float64, mask, edges of the cells and weights."""
    rng = np.random.default_rng(sum(case.shape))
    image = case.contrast * rng.standard_normal((case.channels, *case.shape)) + 3
    inside = rng.random(case.shape) < case.kept
    inside[0, 0, 0] = True
    edges = tuple(np.arange(n + 1) * length // n for length, n in zip(case.shape, case.cells, strict=True))
    return image, inside, edges, np.array([0.010, 0.013, 0.007, 1 / case.channels])


def run(kernels: Any, case: Case, kind: Any = torch.from_numpy) -> list[np.ndarray]:
    """Everything that a backend makes of a case; `kind` turns an array into one of its own."""
    image, inside, edges, weights = make(case)
    results = []
    mask = kind(inside)
    features = [kernels.scale(kind(channel), mask) for channel in image]
    features = torch.stack(features) if isinstance(features[0], torch.Tensor) else np.stack(features)
    results.append(features)
    grids = [edges, *([np.array([0, n // 2, n])[n < 2 :] for n in case.shape] for _ in range(2))]
    results.append(np.array(kernels.cell_counter(mask)(grids)))
    for iterations in case.iterations:
        cells = kernels.assign(features, mask, edges, weights, iterations)
        results.append(cells)
        for min_size, most in case.sizes:
            segments, count = kernels.connect(cells, features, min_size, most)
            results += [segments, np.array(count)]
    return [r.cpu().numpy() if isinstance(r, torch.Tensor) else r for r in results]


def expected(case: Case) -> list[np.ndarray]:
    """What the CPU kernels make of a case."""
    return run(slic_numba, case, np.asarray)


def check(kernels: Any, case: Case, kind: Any = torch.from_numpy) -> None:
    """A backend gives what the CPU kernels give, bit for bit."""
    for found, wanted in zip(run(kernels, case, kind), expected(case), strict=True):
        np.testing.assert_array_equal(found, wanted)
