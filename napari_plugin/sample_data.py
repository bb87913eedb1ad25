"""Sample data that need no download."""

from typing import Any

import numpy as np

from napari_voxpool.display import layer_of_volume
from voxpool.data.phantom import phantom
from voxpool.io import Geometry, Volume

SHAPE = (56, 68, 56)
SPACING = 2.5


def sample_phantom() -> list[Any]:
    """Return the phantom's image layer, centred on the origin (npe2's sample data hook)."""
    image, _ = phantom(SHAPE, spacing=(SPACING,) * 3)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * SPACING for n in SHAPE]
    return [layer_of_volume(Volume(image, Geometry(SHAPE, affine)), "phantom")]
