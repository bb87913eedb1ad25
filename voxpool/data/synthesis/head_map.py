"""Label maps of whole heads, prepared for deformation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxpool.data.head_labels import BACKGROUND, CLASS_OF, OUTER_CSF, VENTRICLES, structure_ids
from voxpool.errors import InputError
from voxpool.io import read_labels

NODE = 4
"""Distance in voxels of the nodes of the coarse grid on which shapes are computed."""

_MARGIN = 8
_REACH = 6.0  # mm that a ventricle's pull reaches
_MOST_OFF = 0.02


@dataclass(frozen=True)
class HeadMap:
    """A label map of a head, at 1 mm in RAS.

    Attributes:
        structures: Index into `voxpool.data.head_labels.STRUCTURES`, uint8, (D, H, W).
        centre: Middle of the brain, in voxels.
        outward: Direction away from the ventricles, at most 1 long, on every fourth voxel, (3, d, h, w).
    """

    structures: Tensor
    centre: tuple[float, float, float]
    outward: Tensor

    def to(self, device: torch.device | str) -> "HeadMap":
        """The map on another device."""
        return HeadMap(self.structures.to(device), self.centre, self.outward.to(device))


def read_head_map(path: Path | str) -> HeadMap:
    """Read a label map of a whole head with FreeSurfer's ids.

    Raises:
        InputError: If its voxels are not of 1 mm, or it holds no brain.
    """
    volume = read_labels(path)
    if any(abs(mm - 1) > _MOST_OFF for mm in volume.geometry.spacing):
        raise InputError(f"{path} has voxels of {volume.geometry.spacing} mm; resample the label map to 1 mm")
    structures = structure_ids(_to_ras(volume.array, volume.geometry.affine))
    return make_head_map(structures)


def make_head_map(structures: np.ndarray) -> HeadMap:
    """Prepare structures (D, H, W) in RAS at 1 mm: crop the air, find the brain and the pull of the ventricles.

    Raises:
        InputError: If there is no brain.
    """
    classes = CLASS_OF[structures]
    inside = (classes != BACKGROUND) & (classes != OUTER_CSF)
    if not inside.any():
        raise InputError("the label map holds no brain: it needs FreeSurfer's ids, such as 2 and 41 for white matter")
    box = tuple(
        slice(max(0, first.start - _MARGIN), first.stop + _MARGIN)
        for first in ndimage.find_objects((structures > 0).astype(np.int8))[0]
    )
    structures, inside = structures[box], inside[box]
    low = np.array([where.min() for where in np.nonzero(inside)])
    high = np.array([where.max() for where in np.nonzero(inside)])
    coarse = np.ascontiguousarray((CLASS_OF[structures[::NODE, ::NODE, ::NODE]] == VENTRICLES), np.float32)
    pull = -np.stack(np.gradient(ndimage.gaussian_filter(coarse, _REACH / NODE)))
    pull /= max(float(np.sqrt((pull**2).sum(axis=0)).max()), 1e-6)
    return HeadMap(
        torch.from_numpy(np.ascontiguousarray(structures)),
        tuple(float(c) for c in (low + high) / 2),  # type: ignore[arg-type]
        torch.from_numpy(pull.astype(np.float32)),
    )


def _to_ras(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Reorder and flip the axes so that they run to the right, the front and the top."""
    directions = affine[:3, :3]
    order = [int(np.argmax(np.abs(directions[world]))) for world in range(3)]
    array = array.transpose(order)
    return np.flip(array, tuple(world for world in range(3) if directions[world, order[world]] < 0))
