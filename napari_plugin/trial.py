"""What a run will take on this computer, by a trial of the chosen model; remembered as long as the program runs."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_voxpool.display import AXES, grid_of
from napari_voxpool.models import describe_model

if TYPE_CHECKING:
    from napari.layers import Image

    from voxpool.estimate import Speed
    from voxpool.inference import Segmenter


def foretell(path: str, device: str, layer: "Image | None") -> tuple[str, str]:
    """What a model is, and what segmenting a volume with it will take, in words; seconds, so for a thread.

    Args:
        path: As `Model.path`.
        device: "auto", or a torch device.
        layer: The volume; None where none is open.

    Returns:
        Facts of the model, and the estimate or an empty text.

    Raises:
        ModelError: If the model is refused.
        ResourceError: If the device is not there.
    """
    facts = describe_model(path)
    if layer is None or layer.ndim != len(AXES):
        return facts, ""
    from voxpool.estimate import estimate, shown_share

    segmenter, speed = _tried(path, device)
    found = estimate(segmenter, grid_of(layer).geometry, speed, shown=shown_share(np.asarray(layer.data)))
    where = "the GPU" if segmenter.device.type == "cuda" else "the processor"
    text = f"About {_about(found.seconds)} s on {where}, {found.gigabytes:.1f} GB of memory"
    if found.gigabytes > found.free_gigabytes:
        return facts, f"{text}, but only {found.free_gigabytes:.1f} GB are free: it will work in small tiles, slowly."
    return facts, f"{text} ({found.free_gigabytes:.0f} GB are free)."


@lru_cache(maxsize=4)
def _tried(path: str, device: str) -> "tuple[Segmenter, Speed]":
    from voxpool.estimate import measure_speed
    from voxpool.inference import Segmenter

    segmenter = Segmenter.load(path, device=device)
    return segmenter, measure_speed(segmenter)


def _about(seconds: float) -> int:
    """Rounded to what such a guess is worth."""
    return max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)
