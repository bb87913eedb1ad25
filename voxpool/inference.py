"""From a volume to tissue labels: whole, or in tiles with the same result."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from voxpool.data.head_labels import CLASSES, CONVENTIONS, TISSUES
from voxpool.data.likeness import unlike_brain
from voxpool.data.native import to_native
from voxpool.data.transforms import make_segments, prepare, preprocessing, to_meta_tensor
from voxpool.engine import Amp, to_device, use_bf16
from voxpool.errors import InputError, ModelError, ResourceError, UsageError
from voxpool.io import Volume
from voxpool.model_package import ModelInfo, load_models
from voxpool.nets import GuidedVoxResNet, SupervoxelNet
from voxpool.nets.guide import brain_mask, look
from voxpool.nets.heads import BaseNet
from voxpool.tiles import Averaged, Decided, predict, ran_out_of_memory, smaller_tiles

STAGES = ("prepare", "context", "supervoxels", "network", "labels")
"""What segmenting a volume consists of, in this order; "context" for models of whole heads alone."""

_T = TypeVar("_T")

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
        notices: What was done otherwise than asked, because memory ran out, one sentence each.
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
    notices: tuple[str, ...] = ()

    @property
    def quality(self) -> float:
        """What share of the labels should be right, by the network's own probabilities: mean over the classes."""
        return float(np.mean(list(self.confidence.values()))) if self.confidence else 0.0


class Segmenter:
    """A network with its preprocessing: the one way from a volume to labels, for commands, viewer and programs.

    Args:
        net: Network in the form that `info` describes, or several that are asked together: the mean of their
            probabilities decides.
        info: Its description.
        device: "auto" for a GPU where there is one, or a torch device.
        amp: "auto" for bfloat16 where the processor computes in it, "bf16" or "off".

    Example:
        >>> segmenter = Segmenter.load("model")                           # doctest: +SKIP
        >>> segmentation = segmenter.segment(read_volume("t1.nii.gz"))    # doctest: +SKIP
    """

    def __init__(
        self,
        net: nn.Module | Sequence[nn.Module],
        info: ModelInfo,
        *,
        device: torch.device | str = "auto",
        amp: Amp = "auto",
    ) -> None:
        self.nets = [net] if isinstance(net, nn.Module) else list(net)
        self.info = info
        self.amp = amp
        self._move(select_device(device))

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "auto", amp: Amp = "auto") -> "Segmenter":
        """A segmenter of a model package, or of the folds of a run's variant together.

        Args:
            folder: A package, "bundled" for the model of head MRI that comes with voxpool, or a folder that holds
                packages as `fold*/model`.
            device: As above.
            amp: As above.

        Raises:
            ModelError: If a package is refused, or the folds do not go together.
        """
        nets, info = load_models(folder)
        contexts = [base.context for net in nets if isinstance(base := base_of(net), GuidedVoxResNet)]
        if any(not _equal(context, contexts[0]) for context in contexts):
            raise ModelError(f"the folds of {Path(folder).name} differ in their context networks; choose one of them")
        return cls(nets, info, device=device, amp=amp)

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
        notices: list[str] = []
        guided = self.guided
        stride = guided.whole_stride if guided else cast(BaseNet, self.nets[0]).stride
        transform = preprocessing(self.info.preprocess, stride=stride, labels=False)
        geometry = volumes[0].geometry
        image = to_meta_tensor(np.stack([v.array for v in volumes]), geometry.affine)
        data = prepare(transform, {"image": image})
        affine, spacing = np.asarray(data["image"].affine, np.float64), tuple(float(mm) for mm in data["image"].pixdim)
        if guided:
            stages.enter("context", 0.15)
        seen = self._fitting(partial(self._see, data), [None], notices)
        del image, data

        segments, finest = None, None
        if self.info.supervoxels is not None:
            stages.enter("supervoxels", 0.3)
            segments = make_segments(seen.image, seen.mask, self.info.supervoxels, spacing=spacing)
            finest = segments.reshape(-1, *seen.mask.shape)[0]
        stages.enter("network", 0.4)
        decided = self._fitting(
            lambda side: self._ask(
                seen, segments, merged, side, lambda done: stages.enter("network", 0.4 + 0.5 * done), cancelled
            ),
            smaller_tiles(self.nets[0], seen.mask.shape, tile),
            notices,
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
            warnings=unlike_brain(volumes[0], on_grid, volumes_ml, confidence) if guided else (),
            notices=tuple(notices),
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

    @property
    def guided(self) -> GuidedVoxResNet | None:
        """The network that sees the whole head first, for models of whole heads."""
        base = base_of(self.nets[0])
        return base if isinstance(base, GuidedVoxResNet) else None

    def _move(self, device: torch.device) -> None:
        self.device = device
        self.nets = [to_device(net, device).eval() for net in self.nets]
        self.bf16 = use_bf16(self.amp, device)

    def _fitting(self, work: Callable[[int | None], _T], tiles: Sequence[int | None], notices: list[str]) -> _T:
        """Do the work in the first tiles that fit into memory; on the CPU where none fits the GPU's.

        Raises:
            ResourceError: If memory is too small for all of them.
        """
        while True:
            for number, tile in enumerate(tiles):
                try:
                    found = work(tile)
                except (MemoryError, RuntimeError) as error:
                    if not ran_out_of_memory(error):
                        raise
                else:
                    if number:
                        notices.append(f"memory ran out, so the volume was cut into tiles of {tile} voxels")
                    return found
                gc.collect()  # what the failed attempt held
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            if self.device.type == "cpu":
                raise ResourceError(
                    "there is not enough memory, even for small tiles; close other programs, or crop the volume (E604)"
                )
            notices.append(f"{self.device} has too little memory, so the CPU computed")
            self._move(torch.device("cpu"))

    def _ask(
        self,
        seen: "_Seen",
        segments: np.ndarray | None,
        merged: Sequence[int] | None,
        tile: int | None,
        progress: Callable[[float], None],
        cancelled: CancelCallback | None,
    ) -> Decided:
        """What the network says of every voxel, or the networks together."""
        shape = seen.mask.shape
        decided = Decided(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), merged)
        together = Averaged(cast(BaseNet, self.nets[0]).num_classes, shape) if len(self.nets) > 1 else None
        for number, net in enumerate(self.nets):
            # mypy cannot tell the type of a lambda that keeps the loop's number
            predict(
                net,
                seen.maps,
                segments,
                device=self.device,
                bf16=self.bf16,
                tile=tile,
                into=together or decided,
                progress=lambda done, number=number: progress((number + done) / len(self.nets)),  # type: ignore[misc]
                cancelled=cancelled,
            )
        if together is not None:
            together.decide(decided)
        return decided

    def _see(self, data: dict[str, MetaTensor], _: int | None) -> "_Seen":
        """What the network labels: all of it, or the brain that the context network finds."""
        net = self.guided
        if net is None:
            return _Seen.whole(data)
        image = data["image"].as_tensor()
        guide = look(net.context, image[0].to(self.device), bf16=self.bf16)
        box = guide.brain_box()
        if box is None:
            raise InputError(
                "no brain was found in the image: the model is for MRI of heads; check the file and its orientation"
            )
        maps = guide.maps(image[0].to(self.device), box).cpu()
        return _Seen(maps, image[(slice(None), *box)].numpy(), brain_mask(maps, net.context_classes).numpy(), box)


def base_of(net: nn.Module) -> nn.Module:
    """The network under a supervoxel head, or the network itself."""
    return net.base if isinstance(net, SupervoxelNet) else net


def _equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


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
        raise ResourceError("device cuda was asked for but torch finds no CUDA GPU; choose the device cpu (E603)")
    return device
