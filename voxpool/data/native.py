"""Back from the preprocessed grid to the grid of the volume as stored."""

import numpy as np
from scipy import ndimage

from voxpool.io import Geometry

# of a voxel: how far from the exact place a whole row of voxels may be looked up by one index
_TOLERANCE = 1e-3


def to_native(array: np.ndarray, affine: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Values of another grid on a volume's own, by the nearest neighbour.

    Args:
        array: Class or supervoxel ids, (D, H, W).
        affine: Where their grid lies, (4, 4), voxel index to RAS+ mm.
        geometry: The volume's own grid.

    Returns:
        Values on that grid, of the array's dtype; 0 where the other grid has none.
    """
    move = np.linalg.inv(affine) @ geometry.affine
    rotation, offset = move[:3, :3], move[:3, 3]
    sources = np.abs(rotation).argmax(axis=1)  # which of the volume's axes runs along each of the array's
    skew = np.abs(rotation)
    skew[np.arange(3), sources] = 0
    if sorted(sources) != [0, 1, 2] or (skew @ np.array(geometry.shape)).max() > _TOLERANCE:  # sheared
        return ndimage.affine_transform(array, rotation, offset, output_shape=geometry.shape, order=0)
    inside, indices = [slice(0, 0)] * 3, []
    for axis, source in enumerate(sources):
        # rounding errors of the affine must not decide a tie
        along = np.round(np.arange(geometry.shape[source]) * rotation[axis, source] + offset[axis], 6)
        index = np.floor(along + 0.5).astype(np.intp)
        valid = np.flatnonzero((index >= 0) & (index < array.shape[axis]))
        if not len(valid):
            return np.zeros(geometry.shape, array.dtype)
        inside[source] = slice(int(valid[0]), int(valid[-1]) + 1)
        indices.append(index[valid])
    native = np.zeros(geometry.shape, array.dtype)
    native[tuple(inside)] = array[np.ix_(*indices)].transpose(np.argsort(sources))
    return native
