"""DeepLab v2 (Chen et al. 2018): a dilated ResNet, and scores that are summed over four reaches (ASPP)."""

import torch
from torch import Tensor, nn

from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import ResNet

RATES = (6, 12, 18, 24)


class DeepLabV2(PlanarNet):
    """DeepLab v2, one scale.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 101 in the paper.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 21, *, depth: int = 101) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = ResNet(depth, in_channels, output_stride=8)
        self.feature_channels = self.encoder.channels[-1]
        self.head = _SummedReaches(self.feature_channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, 2048, H / 8, W / 8)."""
        return self.encoder(x)[-1]


class _SummedReaches(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate) for rate in RATES)
        for branch in self.branches:  # torch types what a list holds as any module
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)
