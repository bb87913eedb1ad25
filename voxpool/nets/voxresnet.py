"""VoxResNet and its reduced variants.

Chen, Dou, Yu, Qin, Heng: VoxResNet: deep voxelwise residual networks for brain segmentation from 3D MR images,
NeuroImage 170 (2018); reduced as in Schuurmans, Berman, Blaschko (2018), Section 3.2.
"""

import itertools
from collections.abc import Callable
from typing import cast

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from voxpool.errors import UsageError
from voxpool.layers import PreActivationResidual, ScaleDecoder, SumOfScales

BASE_WIDTH = 32
MAX_STAGES = 4
_FIRST_SCORES = 0.1


def _instance_norm(channels: int) -> nn.GroupNorm:
    """Each channel of each image by its own statistics; torch's InstanceNorm leaves the channels-last layout."""
    return nn.GroupNorm(channels, channels)


_NORMS: dict[str, Callable[[int], Callable[[int], nn.Module]]] = {
    "batch": lambda dims: Norm["batch", dims],
    "instance": lambda _dims: _instance_norm,
}


class VoxResNet(nn.Module):
    """VoxResNet with one decoder per scale and summed class scores.

    `features(x)` gives the decoded scales, `head` the final convolution over them; a supervoxel head
    (`voxpool.nets.SupervoxelNet`) works between the two.

    The paper keeps "the layers of Fig. 4" for the reduced nets without a table. Our reading: `reduction` f > 1
    keeps the first two stages and divides every width by f. `stages`, `res_per_stage` and `reduction` can be set
    for another reading.

    Args:
        in_channels: Number of image channels.
        num_classes: Number of classes, background included.
        spatial_dims: 2 or 3.
        reduction: The paper's factor f; widths are 32 / f and 64 / f. It must divide 32.
        stages: Number of scales, 1 to 4; by default 4 for the full net and 2 for a reduced one.
        res_per_stage: Number of VoxRes modules per stage after the first.
        decoded: Channels of each scale at full resolution; by default as many as the scale has, as in the paper.
        norm: "batch" as in the paper, or "instance": each image by its own statistics, for networks that see one
            whole image at a time and any contrast. The scores of a part of an image then depend on the rest of it.
            Scales are normalised before they are decoded too, and class scores begin small: it learns faster.

    Raises:
        UsageError: If `reduction` does not divide 32, `stages` is not 1 to 4, or `norm` is unknown.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 4,
        *,
        spatial_dims: int = 3,
        reduction: int = 1,
        stages: int | None = None,
        res_per_stage: int = 2,
        decoded: int | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if reduction < 1 or BASE_WIDTH % reduction:
            raise UsageError(f"reduction must divide {BASE_WIDTH}, got {reduction}; take 1, 4 or 8")
        if stages is None:
            stages = MAX_STAGES if reduction == 1 else 2
        if not 1 <= stages <= MAX_STAGES:
            raise UsageError(f"stages must be 1 to {MAX_STAGES}, got {stages}")
        if norm not in _NORMS:
            raise UsageError(f"norm must be one of {', '.join(_NORMS)}, got {norm!r}")
        conv, normal = Conv["conv", spatial_dims], _NORMS[norm](spatial_dims)
        narrow, wide = BASE_WIDTH // reduction, 2 * BASE_WIDTH // reduction

        self.stem = nn.Sequential(
            conv(in_channels, narrow, 3, padding=1),
            normal(narrow),
            nn.ReLU(inplace=True),
            conv(narrow, narrow, 3, padding=1),
        )
        widths = [narrow] + [wide] * (stages - 1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                normal(before),
                nn.ReLU(),  # not in place: its input is also decoded
                conv(before, after, 3, stride=2, padding=1),
                *(PreActivationResidual(after, spatial_dims=spatial_dims, norm=normal) for _ in range(res_per_stage)),
            )
            for before, after in itertools.pairwise(widths)
        )
        self.decoders = nn.ModuleList(
            ScaleDecoder(
                width,
                2**scale,
                out_channels=decoded,
                norm=normal if norm == "instance" else None,
                spatial_dims=spatial_dims,
            )
            for scale, width in enumerate(widths)
        )
        widths = [decoded or width for width in widths]
        self.head = SumOfScales(widths, num_classes, spatial_dims=spatial_dims)
        self.num_classes = num_classes
        self.feature_channels = sum(widths)
        self.stride = 2 ** (stages - 1)
        self.receptive_radius = _receptive_radius(stages, res_per_stage)
        self.apply(_init_weights)
        if norm == "instance":
            for classifier in cast(list[nn.Conv3d], self.head.classifiers):
                nn.init.normal_(classifier.weight, std=_FIRST_SCORES * classifier.weight.std().item())

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Decoded scales of an image.

        Args:
            x: Image, (N, in_channels, *S); every size a multiple of `stride`.

        Returns:
            One tensor (N, C_i, *S) per scale; the C_i sum to `feature_channels`.

        Raises:
            UsageError: If a size is no multiple of `stride`.
        """
        if any(size % self.stride for size in x.shape[2:]):
            raise UsageError(
                f"spatial sizes must be multiples of {self.stride}, got {tuple(x.shape[2:])}; pad the image first"
            )
        x = self.stem(x)  # (N, 32/f, *S)
        decoded = [self.decoders[0](x)]
        for stage, decoder in zip(self.stages, list(self.decoders)[1:], strict=True):
            x = stage(x)  # (N, 64/f, *(S / 2^i))
            decoded.append(decoder(x))
        return tuple(decoded)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, num_classes, *S) of an image (N, in_channels, *S)."""
        return self.head(self.features(x))


def _receptive_radius(stages: int, res_per_stage: int) -> int:
    """How many voxels away an input voxel can still change the class scores of a voxel."""
    radius, widest = 2, 0  # conv1a and conv1b
    for stage in range(stages):
        step = 2**stage
        if stage:
            radius += step // 2 + 2 * res_per_stage * step
        # transposed convolution (kernel step + 2) reaches 1 coarse voxel each way; classifier reaches 1 voxel
        widest = max(widest, radius + (1 if stage == 0 else step + step // 2) + 1)
    return widest


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        # each output voxel sees (kernel / stride)^d of the kernel's taps, times the input channels
        taps = module.in_channels
        for kernel, stride in zip(module.kernel_size, module.stride, strict=True):
            taps *= max(1, kernel // stride)
        nn.init.normal_(module.weight, std=(2.0 / taps) ** 0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
