"""Whether a volume may be an MRI of a head at all: what its values and its extent say before any network sees it."""

from collections.abc import Mapping

import numpy as np

from voxpool.io import Volume

BRAIN_ML = 700, 2100
"""What a human brain measures with its CSF, from a small child's on, with room for cropped scans."""

LEAST_QUALITY = 0.6
"""A model that trusts its labels less than this has probably not seen what it was trained for."""

MOST_EMPTY = 0.25
"""An MRI shows something everywhere in a brain; a larger share of labels on the image's lowest value is nonsense."""

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


def unlike_brain(
    volume: Volume, labels: np.ndarray, volumes_ml: Mapping[str, float], confidence: Mapping[str, float]
) -> tuple[str, ...]:
    """Why a segmentation of a head may be nonsense: its image, its size, or what the model thinks of it.

    Args:
        volume: The volume as stored.
        labels: Class ids on its grid, 0 outside the brain.
        volumes_ml: Volume of each tissue.
        confidence: Mean probability of each tissue's labels.
    """
    low, high = BRAIN_ML
    brain_ml, sure = sum(volumes_ml.values()), float(np.mean(list(confidence.values()) or [0.0]))
    inside = volume.array[labels > 0]
    empty = float(np.mean(inside == volume.array.min())) if inside.size else 0.0
    warnings = list(unlike_head_mri(volume))
    if not low <= brain_ml <= high:
        warnings.append(
            f"the brain measures {brain_ml:.0f} mL, which is unlikely ({low} to {high}); look at the labels"
        )
    if empty > MOST_EMPTY:
        warnings.append(f"{empty:.0%} of the labels lie where the image shows nothing; is it an MRI of a head?")
    if sure < LEAST_QUALITY:
        warnings.append(f"the model expects {sure:.0%} of its labels to be right only; look at the labels")
    return tuple(warnings)
