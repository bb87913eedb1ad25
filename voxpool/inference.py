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

from voxpool.data.transforms import invert, make_segments, prepare, preprocessing, to_meta_tensor
from voxpool.engine import Amp, to_device, use_bf16
from voxpool.errors import InputError, ResourceError, UsageError
from voxpool.io import Volume
from voxpool.model_package import ModelInfo, load_package
from voxpool.nets import GuidedVoxResNet, SupervoxelNet
from voxpool.nets.guide import brain_mask, look
from voxpool.nets.heads import BaseNet
from voxpool.tiles import predict

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
        supervoxel_seconds: The share of it that made the supervoxels.
        num_segments: Number of supervoxels, or None for a network without them.
        segments: Supervoxel ids on the input's own grid (-1 for none), int32, or None.
    """

    labels: np.ndarray
    label_names: dict[int, str]
    volumes_ml: dict[str, float]
    seconds: float
    supervoxel_seconds: float
    num_segments: int | None
    segments: np.ndarray | None


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
        """A segmenter of a model package.

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
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> Segmentation:
        """Segment a volume.

        Args:
            volume: The image; for a model of several channels one volume each, on one grid.
            tile: Side of the tiles in voxels; None for the whole volume where memory allows, else the largest tiles.
            progress: Called with a stage ("prepare", "supervoxels", "network", "labels") and a fraction 0..1 of all.
            cancelled: Asked before each tile; when true, `Cancelled` is raised.

        Returns:
            Labels on the input's grid, and their volumes.

        Raises:
            InputError: If the number of volumes or their grids do not fit the model, or the image is constant.
            ResourceError: If not even a small tile fits into memory.
            Cancelled: If `cancelled` said so.

        Determinism: the same volume gives the same labels; tiles change sums by rounding alone.
        """
        start = time.perf_counter()
        report = progress or (lambda stage, fraction: None)
        volumes = self._checked(volume)
        report("prepare", 0.0)
        net = self.net.base if isinstance(self.net, SupervoxelNet) else self.net
        guided = net if isinstance(net, GuidedVoxResNet) else None
        stride = guided.whole_stride if guided else cast(BaseNet, self.net).stride
        transform = preprocessing(self.info.preprocess, stride=stride, labels=False)
        image = to_meta_tensor(np.stack([v.array for v in volumes]), volumes[0].geometry.affine)
        data = prepare(transform, {"image": image})
        seen = self._look(guided, data) if guided else _Seen.whole(data)

        segments, finest, made = None, None, 0.0
        if self.info.supervoxels is not None:
            report("supervoxels", 0.2)
            made = time.perf_counter()
            spacing = tuple(float(mm) for mm in data["image"].pixdim)
            segments = make_segments(seen.image, seen.mask, self.info.supervoxels, spacing=spacing)
            finest = segments.reshape(-1, *seen.mask.shape)[0]
            made = time.perf_counter() - made
        report("network", 0.3)
        labels = predict(
            self.net,
            seen.maps,
            segments,
            device=self.device,
            bf16=self.bf16,
            tile=tile,
            progress=lambda fraction: report("network", 0.3 + 0.6 * fraction),
            cancelled=cancelled,
        )
        report("labels", 0.9)

        def native(array: np.ndarray) -> np.ndarray:
            whole = np.zeros(data["image"].shape[1:], array.dtype)
            whole[seen.box] = array
            return invert(transform, data, whole)

        on_grid = native(labels).astype(np.uint8)
        geometry = volumes[0].geometry
        counts = np.bincount(on_grid.ravel(), minlength=len(self.info.label_names))
        # ids are shifted by one so that what inverting fills in, 0, means none
        shifted = None if finest is None else native(finest + 1).astype(np.int32) - 1
        report("labels", 1.0)
        return Segmentation(
            labels=on_grid,
            label_names=dict(self.info.label_names),
            volumes_ml={
                name: float(counts[label] * geometry.voxel_volume_ml)
                for label, name in self.info.label_names.items()
                if label
            },
            seconds=time.perf_counter() - start,
            supervoxel_seconds=made,
            num_segments=None if finest is None else int(finest.max()) + 1,
            segments=shifted,
        )

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
        return _Seen(maps, image[(slice(None), *box)].numpy(), brain_mask(maps, net.num_classes).numpy(), box)


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

    @classmethod
    def whole(cls, data: dict[str, MetaTensor]) -> "_Seen":
        image, mask = data["image"].as_tensor(), data["mask"][0].numpy()
        return cls(image, image.numpy(), mask, tuple(slice(None) for _ in mask.shape))


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
