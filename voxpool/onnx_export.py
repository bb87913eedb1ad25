"""A network as an ONNX file: supervoxel pooling in the standard operations that every runtime has."""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pydantic
import torch
from torch import Tensor, nn

from voxpool.errors import ResourceError, UsageError
from voxpool.inference import base_of
from voxpool.io import atomic_path
from voxpool.model_package import ModelInfo
from voxpool.nets import GuidedVoxResNet, MonaiNet, SupervoxelNet
from voxpool.nets.heads import BaseNet
from voxpool.ops import custom_ops  # noqa: F401 - defines the operations that are taken apart here

METADATA = "voxpool"
"""Key of the model's description in the file, as in `model.json` of a model package."""


def export_onnx(
    net: nn.Module, info: ModelInfo, path: Path | str, *, size: Sequence[int], num_segments: int | None = None
) -> None:
    """Write a network as ONNX, for one size of image.

    Inputs are "image" (1, C, *size), prepared as `info.preprocess` says, and for a supervoxel head "segments"
    (1, *size) int64, -1 outside, and of two levels "parents" (1, K) int64; the output is "scores"
    (1, num_classes, *size).

    Args:
        net: The network, of a model package for example; used in evaluation mode, in float32.
        info: Its description, which goes into the file as metadata.
        path: Where to write, `.onnx`.
        size: Voxels per axis, multiples of the network's stride.
        num_segments: The most supervoxels K that an image may have, for a head; ids are 0 to K-1, and not all of them
            need to occur.

    Raises:
        UsageError: If the size does not fit, the number of supervoxels is missing, or the network runs in two stages
            or window by window.
        ResourceError: If the extra `export` is not installed, or the disk is full.

    Determinism: the scores are those of the network up to rounding (relative 1e-5).
    """
    try:
        import onnxscript  # noqa: F401 - what torch's exporter needs
    except ImportError as error:
        raise ResourceError('ONNX needs onnxscript; run pip install "voxpool[export]"') from error
    base = base_of(net)
    if isinstance(base, GuidedVoxResNet):
        raise UsageError("a guided network runs in two stages, of which ONNX holds one; export a voxresnet")
    if isinstance(base, MonaiNet):
        raise UsageError("an imported network is asked window by window, of which ONNX holds one; export its bundle")
    stride = cast(BaseNet, base).stride
    if any(voxels % stride or voxels < 1 for voxels in size):
        raise UsageError(f"the size must be a multiple of {stride} voxels per axis, got {tuple(size)}")
    inputs: dict[str, Tensor] = {"image": torch.zeros(1, len(info.channels), *size)}
    if isinstance(net, SupervoxelNet):
        if num_segments is None or num_segments < 1:
            raise UsageError(f"a supervoxel head needs the most supervoxels of an image, got {num_segments}")
        inputs["segments"] = torch.zeros(1, *size, dtype=torch.int64)
        if net.levels > 1:
            inputs["parents"] = torch.zeros(1, num_segments, dtype=torch.int64)
    whole = _Positional(net, num_segments).eval()
    arguments = tuple(inputs.values())
    with _quiet(), torch.no_grad():
        program = torch.export.export(whole, arguments)
        program = program.run_decompositions({**torch.export.default_decompositions(), **_standard()})
        made = torch.onnx.export(
            program, arguments, dynamo=True, verbose=False, input_names=list(inputs), output_names=["scores"]
        )
    assert made is not None  # with dynamo=True there is always a program
    made.model.metadata_props[METADATA] = json.dumps(pydantic.TypeAdapter(ModelInfo).dump_python(info, mode="json"))
    with atomic_path(path) as part:
        made.save(os.fspath(part))


class _Positional(nn.Module):
    """A network whose inputs are tensors alone, as a graph wants them."""

    def __init__(self, net: nn.Module, num_segments: int | None) -> None:
        super().__init__()
        self.net, self.num_segments = net, num_segments

    def forward(self, image: Tensor, segments: Tensor | None = None, parents: Tensor | None = None) -> Tensor:
        if segments is None:
            return self.net(image)
        more = {} if parents is None else {"parents": parents}
        return self.net(image, segments, self.num_segments, **more)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of other packages."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(before)


def _standard() -> dict[Any, Callable[..., Any]]:
    """Our operations, each by standard ones."""
    ops = torch.ops.voxpool
    return {
        ops.segment_max.default: _max,
        ops.segment_sum.default: _sum,
        ops.segment_mean.default: _mean,
        ops.unpool.default: _unpool,
    }


def _places(segments: Tensor, num_segments: int, channels: int) -> Tensor:
    """Where every voxel goes, (N, C, P): what is outside goes behind the last supervoxel."""
    ids = torch.where(segments < 0, num_segments, segments).long()
    return ids.unsqueeze(1).expand(-1, channels, -1)


def _max(x: Tensor, segments: Tensor, num_segments: int, *_options: Any) -> tuple[Tensor, Tensor]:
    maxima = x.new_full((x.shape[0], x.shape[1], num_segments + 1), -torch.inf)
    maxima = maxima.scatter_reduce(2, _places(segments, num_segments, x.shape[1]), x, "amax")[:, :, :num_segments]
    maxima = torch.where(torch.isinf(maxima), 0, maxima)  # of supervoxels without voxels
    return maxima, torch.zeros_like(maxima, dtype=torch.int64)  # positions are for the gradient alone


def _sum(x: Tensor, segments: Tensor, num_segments: int, *_options: Any) -> Tensor:
    sums = x.new_zeros((x.shape[0], x.shape[1], num_segments + 1))
    return sums.scatter_add(2, _places(segments, num_segments, x.shape[1]), x)[:, :, :num_segments]


def _mean(x: Tensor, segments: Tensor, num_segments: int, *_options: Any) -> tuple[Tensor, Tensor]:
    counts = _sum(torch.ones_like(x[:, :1]), segments, num_segments)
    return _sum(x, segments, num_segments) / counts.clamp(min=1), counts[:, 0].long()


def _unpool(pooled: Tensor, segments: Tensor, base: Tensor | None, *_options: Any) -> Tensor:
    padded = nn.functional.pad(pooled, (0, 1))  # what is outside gets 0
    values = torch.gather(padded, 2, _places(segments, pooled.shape[2], pooled.shape[1]))
    return values if base is None else base + values
