"""Bricks that several networks for images share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import resize


def conv_bn_act(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), batch norm, ReLU."""
    padding = dilation * (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if act else nn.Sequential(*layers)


def separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise 3 × 3, then pointwise convolution, each with batch norm and ReLU (Howard et al. 2017)."""
    return nn.Sequential(
        *conv_bn_act(inputs, inputs, stride=stride, groups=inputs), *conv_bn_act(inputs, outputs, kernel=1)
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; with a shortcut where the shape stays (Sandler et al. 2018).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of the filter.
        expansion: How much wider the inside is.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 6) -> None:
        super().__init__()
        wide = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.path = nn.Sequential(
            *conv_bn_act(inputs, wide, kernel=1),
            *conv_bn_act(wide, wide, stride=stride, groups=wide),
            *conv_bn_act(wide, outputs, kernel=1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same size, or smaller by the stride."""
        y = self.path(x)
        return x + y if self.shortcut else y


class PyramidPooling(nn.Module):
    """Means over coarse grids of cells, narrowed, enlarged and joined to the input (Zhao et al. 2017).

    Args:
        inputs: Channels of the input.
        narrowed: Channels of each grid.
        bins: Cells per side of each grid.
    """

    def __init__(self, inputs: int, narrowed: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(conv_bn_act(inputs, narrowed, kernel=1) for _ in bins)
        self.out_channels = inputs + narrowed * len(self.bins)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, out_channels, h, w)."""
        pooled = [
            resize(level(functional.adaptive_avg_pool2d(x, bins)), x.shape[2:])
            for bins, level in zip(self.bins, self.levels, strict=True)
        ]
        return torch.cat([x, *pooled], dim=1)


class ChainedResidualPooling(nn.Module):
    """Context by pooling again and again, each time weighted and added (Lin et al. 2017).

    Args:
        channels: Channels.
        stages: How often.
        kernel: Of the convolutions: 3, or 1 in the light-weight form (Nekrasov et al. 2018).
    """

    def __init__(self, channels: int, *, stages: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False) for _ in range(stages)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        x = path = functional.relu(x)
        for convolution in self.convolutions:
            path = convolution(functional.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x
