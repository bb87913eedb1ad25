"""From a volume to tissue labels: whole, or in tiles with the same result."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from voxpool.data.head_labels import CLASSES, CONVENTIONS, TISSUES
from voxpool.data.likeness import unlike_head_mri
from voxpool.data.native import to_native
from voxpool.data.transforms import make_segments, prepare, preprocessing, to_meta_tensor
from voxpool.engine import Amp, to_device, use_bf16
from voxpool.errors import InputError, ResourceError, UsageError
from voxpool.io import Volume
from voxpool.model_package import ModelInfo, load_package
from voxpool.nets import GuidedVoxResNet, SupervoxelNet
from voxpool.nets.guide import brain_mask, look
from voxpool.nets.heads import BaseNet
from voxpool.tiles import Decided, predict

BRAIN_ML = 700, 2100
"""What a human brain measures with its CSF, from a small child's on, with room for cropped scans."""

LEAST_QUALITY = 0.6
"""A model that trusts its labels less than this has probably not seen what it was trained for."""

STAGES = ("prepare", "context", "supervoxels", "network", "labels")
"""What segmenting a volume consists of, in this order; "context" for models of whole heads alone."""

MOST_EMPTY = 0.25
"""An MRI shows something everywhere in a brain; a larger share of labels on the image's lowest value is nonsense."""

ProgressCallback = Callable[[str, float], None]
CancelCallback = Callable[[], bool]


@dataclass(frozen=True)
class Segmentation:
    """Labels of one volume.

    Attributes:
        labels: Class ids on the input's own grid, uint8.
        label_names: Name of each class id.
        volumes_ml: Volume of each foreground class in mL.
        seconds: Time from the volume in memory to the labels.
        stages: The share of it of each of `STAGES`.
        num_segments: Number of supervoxels, or None for a network without them.
        segments: Supervoxel ids on the input's own grid (-1 for none), int32, or None.
        confidence: Mean probability of the labels of each class, by its name: what share of them should be right.
        uncertainty: 1 - mean probability of the labels inside each supervoxel, (K,), or None.
        warnings: Why the labels may be wrong, one sentence each.
    """

    labels: np.ndarray
    label_names: dict[int, str]
    volumes_ml: dict[str, float]
    seconds: float
    stages: dict[str, float]
    num_segments: int | None
    segments: np.ndarray | None
    confidence: dict[str, float]
    uncertainty: np.ndarray | None
    warnings: tuple[str, ...] = ()

    @property
    def quality(self) -> float:
        """What share of the labels should be right, by the network's own probabilities: mean over the classes."""
        return float(np.mean(list(self.confidence.values()))) if self.confidence else 0.0


class Segmenter:
    """A network with its preprocessing: the one way from a volume to labels, for commands, viewer and programs.

    Args:
        net: Network in the form that `info` describes.
        info: Its description.
        device: "auto" for a GPU where there is one, or a torch device.
        amp: "auto" for bfloat16 where the processor computes in it, "bf16" or "off".

    Example:
        >>> segmenter = Segmenter.load("model")                           # doctest: +SKIP
        >>> segmentation = segmenter.segment(read_volume("t1.nii.gz"))    # doctest: +SKIP
    """

    def __init__(
        self, net: nn.Module, info: ModelInfo, *, device: torch.device | str = "auto", amp: Amp = "auto"
    ) -> None:
        self.device = select_device(device)
        self.net = to_device(net, self.device).eval()
        self.info = info
        self.bf16 = use_bf16(amp, self.device)

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "auto", amp: Amp = "auto") -> "Segmenter":
        """A segmenter of a model package; "bundled" is the model of head MRI that comes with voxpool.

        Raises:
            ModelError: If the package is refused.
        """
        net, info = load_package(folder)
        return cls(net, info, device=device, amp=amp)

    def segment(
        self,
        volume: Volume | Sequence[Volume],
        *,
        tile: int | None = None,
        convention: str | None = None,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> Segmentation:
        """Segment a volume.

        Args:
            volume: The image; for a model of several channels one volume each, on one grid.
            tile: Side of the tiles in voxels; None for the whole volume where memory allows, else the largest tiles.
            convention: How the classes of a model of whole heads merge into background, CSF, GM and WM: a key of
                `voxpool.data.head_labels.CONVENTIONS`, or None to keep them.
            progress: Called with one of `STAGES` and a fraction 0..1 of all.
            cancelled: Asked before each tile; when true, `Cancelled` is raised.

        Returns:
            Labels on the input's grid, and their volumes.

        Raises:
            UsageError: If the convention is unknown, or the model's classes are others.
            InputError: If the number of volumes or their grids do not fit the model, or the image is constant.
            ResourceError: If not even a small tile fits into memory.
            Cancelled: If `cancelled` said so.

        Determinism: the same volume gives the same labels; tiles change sums by rounding alone.
        """
        stages = _Stages(progress)
        volumes = self._checked(volume)
        names, merged = self._classes(convention)
        stages.enter("prepare", 0.0)
        net = self.net.base if isinstance(self.net, SupervoxelNet) else self.net
        guided = net if isinstance(net, GuidedVoxResNet) else None
        stride = guided.whole_stride if guided else cast(BaseNet, self.net).stride
        transform = preprocessing(self.info.preprocess, stride=stride, labels=False)
        geometry = volumes[0].geometry
        image = to_meta_tensor(np.stack([v.array for v in volumes]), geometry.affine)
        data = prepare(transform, {"image": image})
        affine, spacing = np.asarray(data["image"].affine, np.float64), tuple(float(mm) for mm in data["image"].pixdim)
        if guided:
            stages.enter("context", 0.15)
        seen = self._look(guided, data) if guided else _Seen.whole(data)
        del image, data

        segments, finest = None, None
        if self.info.supervoxels is not None:
            stages.enter("supervoxels", 0.3)
            segments = make_segments(seen.image, seen.mask, self.info.supervoxels, spacing=spacing)
            finest = segments.reshape(-1, *seen.mask.shape)[0]
        stages.enter("network", 0.4)
        shape = seen.mask.shape
        decided = Decided(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), merged)
        predict(
            self.net,
            seen.maps,
            segments,
            device=self.device,
            bf16=self.bf16,
            tile=tile,
            into=decided,
            progress=lambda fraction: stages.enter("network", 0.4 + 0.5 * fraction),
            cancelled=cancelled,
        )
        stages.enter("labels", 0.9)
        where = seen.place(affine)
        on_grid = to_native(decided.labels, where, geometry)
        counts = np.bincount(on_grid.ravel(), minlength=len(names))
        # ids are shifted by one so that 0, where the grid ends, means none
        shifted = None if finest is None else to_native(finest + 1, where, geometry) - 1
        volumes_ml = {name: float(counts[label] * geometry.voxel_volume_ml) for label, name in names.items() if label}
        probability = np.asarray(decided.confidence, np.float32) / 255
        sure = _mean_by(decided.labels, probability, len(names))
        confidence = {name: float(sure[label]) for label, name in names.items() if label and counts[label]}
        uncertainty = None if finest is None else 1 - _mean_by(finest, probability, int(finest.max()) + 1)
        stages.finish()
        return Segmentation(
            labels=on_grid,
            label_names=names,
            volumes_ml=volumes_ml,
            seconds=sum(stages.seconds.values()),
            stages=stages.seconds,
            num_segments=None if finest is None else int(finest.max()) + 1,
            segments=shifted,
            confidence=confidence,
            uncertainty=uncertainty,
            warnings=_warnings(volumes[0], on_grid, volumes_ml, confidence) if guided else (),
        )

    def _classes(self, convention: str | None) -> tuple[dict[int, str], Sequence[int] | None]:
        """Names of the labels, and what the network's classes become."""
        if convention is None:
            return dict(self.info.label_names), None
        if convention not in CONVENTIONS:
            raise UsageError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
        if tuple(self.info.label_names.values()) != CLASSES:
            raise UsageError(
                f"the model's classes are {', '.join(self.info.label_names.values())}, which no convention merges;"
                " leave the convention out"
            )
        return dict(enumerate(TISSUES)), CONVENTIONS[convention]

    def _checked(self, volume: Volume | Sequence[Volume]) -> list[Volume]:
        volumes = [volume] if isinstance(volume, Volume) else list(volume)
        wanted = self.info.channels
        if len(volumes) != len(wanted):
            raise InputError(
                f"the model needs {len(wanted)} image(s) ({', '.join(wanted)}), got {len(volumes)};"
                " give one per channel"
            )
        for other in volumes[1:]:
            if not other.geometry.matches(volumes[0].geometry):
                raise InputError(
                    f"the channels' grids differ: {other.geometry.shape} and {volumes[0].geometry.shape};"
                    " resample them to one grid"
                )
        return volumes

    def _look(self, net: GuidedVoxResNet, data: dict[str, MetaTensor]) -> "_Seen":
        image = data["image"].as_tensor()
        guide = look(net.context, image[0].to(self.device), bf16=self.bf16)
        box = guide.brain_box()
        if box is None:
            raise InputError(
                "no brain was found in the image: the model is for MRI of heads; check the file and its orientation"
            )
        maps = guide.maps(image[0].to(self.device), box).cpu()
        return _Seen(maps, image[(slice(None), *box)].numpy(), brain_mask(maps, net.context_classes).numpy(), box)


class _Stages:
    """Tells where the work is, and how long each stage took."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._stage = STAGES[0]
        self._since = time.perf_counter()

    def enter(self, stage: str, fraction: float) -> None:
        """Say that a stage begins, or how far it got."""
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        if self._progress:
            self._progress(stage, fraction)

    def finish(self) -> None:
        """Say that all is done."""
        self.enter(self._stage, 1.0)


@dataclass(frozen=True)
class _Seen:
    """What the network labels.

    Attributes:
        maps: Its input, (C, *S).
        image: Intensities for the supervoxels, (channels, *S).
        mask: Where supervoxels are made, (*S).
        box: Where it lies in the preprocessed image.
    """

    maps: Tensor
    image: np.ndarray
    mask: np.ndarray
    box: tuple[slice, ...]

    def place(self, affine: np.ndarray) -> np.ndarray:
        """Where it lies in the body, by the affine of the preprocessed image."""
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in self.box]
        return moved

    @classmethod
    def whole(cls, data: dict[str, MetaTensor]) -> "_Seen":
        image, mask = data["image"].as_tensor(), data["mask"][0].numpy()
        return cls(image, image.numpy(), mask, tuple(slice(None) for _ in mask.shape))


def _mean_by(ids: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Mean of the values that have each id from 0 to count - 1; 0 where none has."""
    inside = ids >= 0
    ids, values = ids[inside], values[inside]
    sums = np.bincount(ids, weights=values, minlength=count)
    return sums / np.maximum(np.bincount(ids, minlength=count), 1)


def _warnings(
    volume: Volume, labels: np.ndarray, volumes_ml: dict[str, float], confidence: dict[str, float]
) -> tuple[str, ...]:
    """Why a segmentation of a head may be nonsense: its image, its size, or what the model thinks of it."""
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


def select_device(device: torch.device | str) -> torch.device:
    """The device to compute on: "auto" takes a CUDA GPU where there is one.

    Raises:
        ResourceError: If CUDA is asked for and absent.
        UsageError: If the name means nothing to torch.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}; take auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("device cuda was asked for but torch finds no CUDA GPU; take --device cpu")
    return device
