"""Whether a volume may be an MRI of a head at all: what its values and its extent say before any network sees it."""

import numpy as np

from voxpool.io import Volume

_SMALLEST_MM, _LARGEST_MM = 90, 450
_FEWEST_VALUES = 16
_TISSUE_LOW, _AIR = -150, 0.05  # Hounsfield units below any tissue, and the share of such voxels that tells a CT
_NEGATIVE = 0.1


def unlike_head_mri(volume: Volume) -> tuple[str, ...]:
    """Why a volume is probably no MRI of a head, one sentence each; empty where nothing speaks against it.

    Args:
        volume: The volume as stored.
    """
    reasons = []
    values = volume.array
    extent = [size * mm for size, mm in zip(values.shape, volume.geometry.spacing, strict=True)]
    if min(extent) < _SMALLEST_MM or max(extent) > _LARGEST_MM:
        found = " x ".join(f"{mm:.0f}" for mm in extent)
        reasons.append(f"the volume spans {found} mm, a head needs {_SMALLEST_MM} to {_LARGEST_MM} along every axis")
    distinct = len(np.unique(values))
    if distinct < _FEWEST_VALUES:
        reasons.append(f"the volume holds {distinct} different values only, like a label map")
    stored = values[values != 0]
    if np.mean(values < _TISSUE_LOW) > _AIR and values.min() > -5000:
        reasons.append(f"the values go down to {values.min():.0f}, like the Hounsfield units of a CT")
    elif len(stored) and np.mean(stored < 0) > _NEGATIVE:
        reasons.append(f"{np.mean(stored < 0):.0%} of the values are negative, like those of a statistics map")
    return tuple(reasons)
