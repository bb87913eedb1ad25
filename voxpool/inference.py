"""From a volume to tissue labels: whole, or in tiles with the same result."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from voxpool.data.transforms import SupervoxelConfig, invert, make_segments, preprocessing, to_meta_tensor
from voxpool.engine import Amp, Cancelled, memory_format, use_bf16
from voxpool.errors import InputError, ResourceError, UsageError
from voxpool.io import Volume
from voxpool.model_package import ModelInfo, load_package
from voxpool.nets import SupervoxelNet
from voxpool.ops import compact_segments, segment_pool

ProgressCallback = Callable[[str, float], None]
CancelCallback = Callable[[], bool]

# share of the free memory that a network may take, and how many feature volumes are alive at its peak
MEMORY_SHARE = 0.5
LIVE_FEATURES = 3.0
SLAB_VOXELS = 2_000_000


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
        self.net = net.to(self.device, memory_format=memory_format(net)).eval()
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
        transform = preprocessing(self.info.preprocess, stride=int(self.net.stride), labels=False)  # type: ignore[arg-type]
        image = to_meta_tensor(np.stack([v.array for v in volumes]), volumes[0].geometry.affine)
        data = transform({"image": image})

        segments, made = None, 0.0
        if self.info.supervoxels is not None:
            report("supervoxels", 0.1)
            made = time.perf_counter()
            segments = self._supervoxels(data, self.info.supervoxels)
            made = time.perf_counter() - made
        labels = predict(
            self.net,
            data["image"].as_tensor(),
            segments,
            device=self.device,
            bf16=self.bf16,
            tile=tile,
            progress=lambda fraction: report("network", 0.3 + 0.6 * fraction),
            cancelled=cancelled,
        )
        report("labels", 0.9)

        def native(array: np.ndarray) -> np.ndarray:
            return invert(transform, data, array)

        on_grid = native(labels).astype(np.uint8)
        geometry = volumes[0].geometry
        counts = np.bincount(on_grid.ravel(), minlength=len(self.info.label_names))
        # ids are shifted by one so that what inverting fills in, 0, means none
        shifted = None if segments is None else native(segments + 1).astype(np.int32) - 1
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
            num_segments=None if segments is None else int(segments.max()) + 1,
            segments=shifted,
        )

    def _checked(self, volume: Volume | Sequence[Volume]) -> list[Volume]:
        volumes = [volume] if isinstance(volume, Volume) else list(volume)
        wanted = self.info.channels
        if len(volumes) != len(wanted):
            raise InputError(
                f"the model needs {len(wanted)} image(s) ({', '.join(wanted)}), got {len(volumes)}; give one per channel"
            )
        for other in volumes[1:]:
            if not other.geometry.matches(volumes[0].geometry):
                raise InputError(
                    f"the channels' grids differ: {other.geometry.shape} and {volumes[0].geometry.shape};"
                    " resample them to one grid"
                )
        return volumes

    def _supervoxels(self, data: dict[str, MetaTensor], config: SupervoxelConfig) -> np.ndarray:
        spacing = tuple(float(mm) for mm in data["image"].pixdim)
        return make_segments(data["image"].numpy(), data["mask"][0].numpy(), config, spacing=spacing)


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


@torch.inference_mode()
def predict(
    net: nn.Module,
    image: Tensor,
    segments: np.ndarray | None,
    *,
    device: torch.device,
    bf16: bool,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: CancelCallback | None = None,
) -> np.ndarray:
    """Class ids of a preprocessed image, by the highest score (the lowest id of equals).

    Every tile is computed with a margin of the network's receptive field, so that its core is what the whole volume
    gives. A supervoxel head pools over all cores before it classifies: max, and sums with counts, join exactly.

    Args:
        net: Network in evaluation mode on `device`.
        image: Normalised intensities, (C, *S), sizes multiples of the network's stride.
        segments: Supervoxel ids, (*S), for a `SupervoxelNet`.
        device: Where to compute.
        bf16: Whether to compute in bfloat16.
        tile: Side of the cores in voxels, or None to choose by memory.
        progress: Called with the fraction done.
        cancelled: Asked before each tile.

    Returns:
        Class ids, (*S), uint8.
    """
    shape = tuple(image.shape[1:])
    stride, radius = int(net.stride), int(net.receptive_radius)  # type: ignore[arg-type]
    core = _round_up(tile, stride) if tile else _core_by_memory(net, shape, device, 2 if bf16 else 4)
    tiles = list(_tiles(shape, core, _round_up(radius, stride)))
    layout = memory_format(net)
    headed = isinstance(net, SupervoxelNet)
    if headed and segments is None:
        raise UsageError("a network with a supervoxel head needs segments, got none; pass the supervoxels of the image")
    labels = np.zeros(shape, np.uint8)
    pooled = _PooledFeatures(net.reduce, int(segments.max()) + 1) if headed else None
    scores: Tensor | None = None
    for number, (window, inner, place) in enumerate(tiles):
        if cancelled and cancelled():
            raise Cancelled(f"segmentation stopped after {number} of {len(tiles)} tiles")
        x = image[(slice(None), *window)][None].to(device, memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            if pooled is None:
                labels[place] = net(x)[(0, slice(None), *inner)].argmax(0).to(torch.uint8).cpu().numpy()
            else:
                maps, own = net.voxel_maps(x)
                pooled.add([m[(slice(None), slice(None), *inner)] for m in maps], segments[place])
                if own is not None:
                    if scores is None:
                        scores = torch.empty((own.shape[1], *shape), dtype=own.dtype)
                    scores[(slice(None), *place)] = own[(0, slice(None), *inner)].cpu()
        if progress:
            progress((number + 1) / len(tiles))
    if pooled is not None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            classified = net.classify(pooled.result())[0]
        _unpool_labels(labels, segments, classified.to(maps[0].dtype).cpu(), scores)
    return labels


class _PooledFeatures:
    """Pooled features of a volume, joined over its tiles: max directly, mean as sum and count."""

    def __init__(self, reduce: str, num_segments: int) -> None:
        self.reduce, self.num_segments = reduce, num_segments
        self.values: Tensor | None = None
        self.counts: Tensor | None = None

    def add(self, maps: Sequence[Tensor], segments: np.ndarray) -> None:
        """Join the maps (1, C_i, *T) of a tile with segments (*T)."""
        device = maps[0].device
        ids = np.unique(segments)
        ids = ids[ids >= 0]
        compacted, count = compact_segments(torch.from_numpy(np.ascontiguousarray(segments)))
        if not count:
            return
        local = compacted[None].to(device)
        reduce = "max" if self.reduce == "max" else "sum"
        values = torch.cat(
            [segment_pool(m if reduce == "max" else m.float(), local, count, reduce=reduce) for m in maps], dim=1
        )
        where = torch.from_numpy(ids.astype(np.int64)).to(device)
        if self.values is None:
            fill = float("-inf") if reduce == "max" else 0.0
            self.values = values.new_full((1, values.shape[1], self.num_segments), fill)
            self.counts = torch.zeros(self.num_segments, device=device)
        assert self.counts is not None  # set together with values
        self.counts[where] += torch.bincount(local[local >= 0].flatten().long(), minlength=count).float()
        before = self.values[:, :, where]
        self.values[:, :, where] = torch.maximum(before, values) if reduce == "max" else before + values

    def result(self) -> Tensor:
        """Pooled features (1, C, K)."""
        if self.values is None or self.counts is None:
            raise InputError("the image has no supervoxel: its foreground is empty; check the file")
        if self.reduce == "mean":
            return self.values / self.counts.clamp_min(1)
        return torch.where(self.counts > 0, self.values, 0.0)


def _unpool_labels(labels: np.ndarray, segments: np.ndarray, classified: Tensor, scores: Tensor | None) -> None:
    """Write the class of the highest score, slab by slab, so that no full-size float volume arises."""
    # column 0 serves the voxels without supervoxel
    table = torch.cat([torch.zeros_like(classified[:, :1]), classified], dim=1)  # (num_classes, 1 + K)
    thickness = max(1, SLAB_VOXELS // max(1, int(np.prod(segments.shape[1:]))))
    for first in range(0, segments.shape[0], thickness):
        slab = slice(first, first + thickness)
        total = table[:, torch.from_numpy(segments[slab].astype(np.int64) + 1)]
        if scores is not None:
            total = scores[:, slab] + total
        labels[slab] = total.argmax(0).to(torch.uint8).numpy()


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _tiles(
    shape: tuple[int, ...], core: int | tuple[int, ...], margin: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Windows with margin, the core inside each window, and the core's place in the volume."""
    cores = core if isinstance(core, tuple) else (core,) * len(shape)
    starts = [range(0, size, side) for size, side in zip(shape, cores, strict=True)]
    for corner in itertools.product(*starts):
        window, inner, place = [], [], []
        for first, side, size in zip(corner, cores, shape, strict=True):
            last = min(first + side, size)
            low, high = max(0, first - margin), min(size, last + margin)
            window.append(slice(low, high))
            inner.append(slice(first - low, last - low))
            place.append(slice(first, last))
        yield tuple(window), tuple(inner), tuple(place)


def _core_by_memory(
    net: nn.Module, shape: tuple[int, ...], device: torch.device, item_bytes: int
) -> int | tuple[int, ...]:
    """The whole volume where its features fit into memory, else the largest cubic core that does."""
    base = net.base if isinstance(net, SupervoxelNet) else net
    per_voxel = LIVE_FEATURES * int(base.feature_channels) * item_bytes  # type: ignore[arg-type]
    voxels = MEMORY_SHARE * _free_bytes(device) / per_voxel
    if np.prod(shape) <= voxels:
        return shape
    stride = int(net.stride)  # type: ignore[arg-type]
    margin = 2 * _round_up(int(net.receptive_radius), stride)  # type: ignore[arg-type]
    core = (int(voxels ** (1 / len(shape))) - margin) // stride * stride
    if core < stride:
        raise ResourceError(
            f"not enough memory: a tile of {margin + stride} voxels a side needs"
            f" {per_voxel * (margin + stride) ** len(shape) / 2**30:.1f} GiB; close other programs or take a smaller net"
        )
    return core


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
