"""A small head of nested ellipsoids."""

import numpy as np

from voxpool.data.head_labels import STRUCTURES


def make_structures(shape: tuple[int, int, int] = (72, 80, 64)) -> np.ndarray:
    """Skin, bone, CSF, cortex, white matter and a ventricle around each other, and a stem on the left."""
    middle = (np.array(shape) - 1) / 2
    grid = (np.indices(shape) - middle.reshape(3, 1, 1, 1)) / middle.reshape(3, 1, 1, 1)
    radius = np.sqrt((grid**2).sum(axis=0))
    structures = np.zeros(shape, np.uint8)
    shells = (("skin and fat", 0.85), ("bone", 0.78), ("outer CSF", 0.72), ("cortex", 0.68), ("white matter", 0.55))
    for name, reach in (*shells, ("lateral ventricle", 0.2)):
        structures[radius < reach] = STRUCTURES.index(name)
    stem = (np.abs(grid[0] + 0.3) < 0.08) & (np.abs(grid[1]) < 0.1) & (grid[2] < 0) & (radius < 0.6)
    structures[stem & (structures != 0)] = STRUCTURES.index("brain stem")
    return structures
