"""What a segmentation will take, before it begins: seconds by a short trial on this machine, and memory."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import psutil
import torch
from torch import Tensor

from voxpool.inference import Segmenter, base_of
from voxpool.io import Geometry
from voxpool.nets import GuidedVoxResNet, MonaiNet
from voxpool.nets.guide import channels, look
from voxpool.nets.heads import BaseNet
from voxpool.supervoxels import blocks
from voxpool.tiles import LIVE_FEATURES, predict

BRAIN_MM3 = 4.6e6
"""The box around a brain that a model of whole heads labels, in mm³: 180 × 160 × 160 mm."""

TRIAL = 64
"""Side of the cube that is segmented to learn how fast this machine is, in voxels."""

# Measured on two cores: seconds per million voxels as stored (reading, resampling, the way back, writing), and per
# million working voxels for supervoxels.
_STORED_SECONDS, _SUPERVOXEL_SECONDS = 0.15, 0.4
# Bytes per voxel as stored (the array, its resampling, the labels and supervoxels on the way back), per working voxel
# beside the features, and of the programs themselves.
_STORED_BYTES, _WORKING_BYTES, _PROGRAM_BYTES = 30, 24, 7e8


@dataclass(frozen=True)
class Estimate:
    """What a segmentation will take, about.

    Attributes:
        seconds: From the volume in memory to the labels.
        gigabytes: Memory of the whole program at its peak, in 10^9 bytes.
        free_gigabytes: Memory that is free now, beside what the program has.
    """

    seconds: float
    gigabytes: float
    free_gigabytes: float


@dataclass(frozen=True)
class Speed:
    """How fast a segmenter is on this machine.

    Attributes:
        whole: Seconds per voxel of the whole image, for networks that look at a whole head first; else 0.
        worked: Seconds per voxel that is labelled.
    """

    whole: float
    worked: float


def measure_speed(segmenter: Segmenter) -> Speed:
    """Time a segmenter on a small cube of noise, or on one window of a network that has windows: a second or two."""
    generator = torch.Generator().manual_seed(0)
    guided = segmenter.guided
    inputs = channels(guided.context_classes) if guided else len(segmenter.info.channels)
    net = base_of(segmenter.nets[0])
    shape, voxels = (net.roi_size, math.prod(net.step)) if isinstance(net, MonaiNet) else ((TRIAL,) * 3, TRIAL**3)
    cube = torch.rand(inputs, *shape, generator=generator)
    segments = np.asarray(blocks((TRIAL,) * 3, size=8))
    if segmenter.info.supervoxels is not None and segmenter.info.supervoxels.per_coarse is not None:
        segments = np.stack([segments, np.asarray(blocks((TRIAL,) * 3, size=16))])
    worked = _fastest(lambda: _ask(segmenter, cube, segments)) / voxels
    whole = 0.0
    if guided:
        side = 2 * TRIAL  # it is looked at in a coarser grid
        head = torch.rand(side, side, side, generator=generator).to(segmenter.device)
        whole = _fastest(lambda: _look(segmenter, guided, head)) / side**3
    return Speed(whole, worked * len(segmenter.nets))


def estimate(segmenter: Segmenter, geometry: Geometry, speed: Speed, *, shown: float = 1.0) -> Estimate:
    """What segmenting a volume of a grid will take.

    Args:
        segmenter: What segments it.
        geometry: The volume's grid.
        speed: Of the segmenter, by `measure_speed`.
        shown: The share of the grid that the box around everything but background takes, see `shown_share`.
    """
    stored = math.prod(geometry.shape)
    step = segmenter.info.preprocess.spacing or geometry.ras().spacing
    extent = stored * geometry.voxel_volume_ml * 1000
    whole = extent / math.prod(step)
    cropped = whole if segmenter.info.preprocess.crop_margin is None else whole * shown
    worked = min(cropped, BRAIN_MM3 / math.prod(step)) if segmenter.guided else cropped
    seconds = _STORED_SECONDS * stored / 1e6 + speed.whole * whole + speed.worked * worked
    if segmenter.info.supervoxels is not None:
        seconds += _SUPERVOXEL_SECONDS * worked / 1e6
    features = cast(BaseNet, base_of(segmenter.nets[0])).feature_channels
    of_net = LIVE_FEATURES * features * (2 if segmenter.bf16 else 4)
    needed = _PROGRAM_BYTES + _STORED_BYTES * stored + (_WORKING_BYTES + of_net) * worked
    return Estimate(seconds, needed / 1e9, psutil.virtual_memory().available / 1e9)


def shown_share(array: np.ndarray) -> float:
    """The share of a volume that the box around all voxels above its lowest value takes, 0 to 1."""
    above = array > array.min()
    sides = [above.any(axis=tuple(other for other in range(array.ndim) if other != axis)) for axis in range(array.ndim)]
    return math.prod(np.ptp(np.flatnonzero(side)) + 1 if side.any() else 0 for side in sides) / max(1, array.size)


def _fastest(work: Callable[[], None], rounds: int = 2) -> float:
    """Seconds of the fastest of some rounds; the first warms up."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _ask(segmenter: Segmenter, cube: Tensor, segments: np.ndarray) -> None:
    predict(segmenter.nets[0], cube, segments, device=segmenter.device, bf16=segmenter.bf16)


@torch.inference_mode()
def _look(segmenter: Segmenter, net: GuidedVoxResNet, head: Tensor) -> None:
    look(net.context, head, bf16=segmenter.bf16)
