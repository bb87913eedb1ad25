"""SwiftNet (Oršić, Krešo, Bevandić, Šegvić 2019): a ResNet, spatial pyramid pooling and a narrow ladder upwards."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.encoders import ResNet

WIDTH = 128
GRIDS = (8, 4, 2)
"""Rows of the pyramid's grids; their columns follow the image's aspect."""


class SwiftNet(PlanarNet):
    """SwiftNet.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 18 or 50 in the papers.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 19, *, depth: int = 18) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.encoder = ResNet(depth, in_channels)
        self.pyramid = _Pyramid(self.encoder.channels[-1])
        self.skips = nn.ModuleList(_unit(channels, WIDTH, 1) for channels in self.encoder.channels[-2::-1])
        self.blends = nn.ModuleList(_unit(WIDTH, WIDTH, 3) for _ in self.skips)
        self.head = _unit(WIDTH, num_classes, 1, bias=True)

    def features(self, x: Tensor) -> Tensor:
        """(N, 128, H / 4, W / 4)."""
        *finer, coarse = self.encoder(x)
        x = self.pyramid(coarse)
        for skip, blend, maps in zip(self.skips, self.blends, finer[::-1], strict=True):
            x = blend(resize(x, maps.shape[2:]) + skip(maps))
        return x


class _Pyramid(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        narrowed = WIDTH // len(GRIDS)
        self.narrow = _unit(inputs, WIDTH, 1)
        self.levels = nn.ModuleList(_unit(WIDTH, narrowed, 1) for _ in GRIDS)
        self.fuse = _unit(WIDTH + narrowed * len(GRIDS), WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        rows, columns = x.shape[2:]
        maps = [x]
        for grid, level in zip(GRIDS, self.levels, strict=True):
            cells = grid, max(1, round(grid * columns / rows))
            maps.append(resize(level(functional.adaptive_avg_pool2d(x, cells)), x.shape[2:]))
        return self.fuse(torch.cat(maps, dim=1))


def _unit(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Sequential:
    """Batch norm and ReLU before the convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    )
