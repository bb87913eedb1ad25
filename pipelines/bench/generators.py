"""Ways to make supervoxels: ours, and what one would use without it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from voxpool import slic
from voxpool_pipelines.bench.volumes import BenchVolume

COMPACTNESS = 0.1
ITERATIONS = 10


@dataclass(frozen=True)
class Generator:
    """One way to make supervoxels.

    Attributes:
        name: Its name in tables.
        package: What must be installed.
        make: Takes a volume and how many segments are wanted; returns segments (D, H, W), negative or 0 outside a mask
            as the package has it.
        masks: Whether it can be kept to a mask.
    """

    name: str
    package: str
    make: Callable[[BenchVolume, int], Any]
    masks: bool = True


def _options(volume: BenchVolume) -> dict[str, Any]:
    """What ours and scikit-image are told alike."""
    return {
        "compactness": COMPACTNESS,
        "spacing": volume.spacing,
        "mask": volume.mask,
        "max_num_iter": ITERATIONS,
    }


def ours(volume: BenchVolume, n_segments: int) -> np.ndarray:
    """Voxpool on the CPU."""
    found: np.ndarray = slic(volume.image, n_segments, **_options(volume))
    return found


def ours_on_gpu(volume: BenchVolume, n_segments: int) -> Any:
    """Voxpool on the GPU, from an image there to segments there, and the wait for them."""
    import torch

    image, mask = volume.on_gpu
    found = slic(image, n_segments, **_options(volume) | {"mask": mask})
    torch.cuda.synchronize()
    return found


def _scikit_image(volume: BenchVolume, n_segments: int) -> np.ndarray:
    from skimage.segmentation import slic as other

    found: np.ndarray = other(volume.image, n_segments, **_options(volume), channel_axis=None, start_label=1)
    return found


def _simpleitk(volume: BenchVolume, n_segments: int) -> np.ndarray:
    sitk = import_module("SimpleITK")
    edge = (volume.image.size * np.prod(volume.spacing) / n_segments) ** (1 / 3)
    image = sitk.GetImageFromArray(volume.image)
    image.SetSpacing([float(mm) for mm in volume.spacing[::-1]])
    run = sitk.SLICImageFilter()
    run.SetSuperGridSize([max(1, round(edge / mm)) for mm in volume.spacing[::-1]])
    run.SetSpatialProximityWeight(COMPACTNESS)
    run.SetMaximumNumberOfIterations(ITERATIONS)
    found: np.ndarray = sitk.GetArrayFromImage(run.Execute(image)).astype(np.int64)
    return found


def _cuda_slic(volume: BenchVolume, n_segments: int) -> Any:
    found: np.ndarray = import_module("cuda_slic.slic").slic(
        volume.image,
        n_segments=n_segments,
        compactness=COMPACTNESS,
        spacing=volume.spacing,
        max_iter=ITERATIONS,
        multichannel=False,
    )
    return found


def peers() -> tuple[Generator, ...]:
    """The other generators that this environment has."""
    every = (
        Generator("scikit-image", "skimage", _scikit_image),
        Generator("SimpleITK", "SimpleITK", _simpleitk, masks=False),
        Generator("cuda-slic", "cuda_slic", _cuda_slic, masks=False),
    )
    return tuple(peer for peer in every if find_spec(peer.package) is not None)
