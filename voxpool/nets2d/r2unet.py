"""R2U-Net (Alom et al. 2018): a U-Net whose convolutions are recurrent, with shortcuts."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet

WIDTHS = (64, 128, 256, 512, 1024)


class R2UNet(PlanarNet):
    """R2U-Net.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        turns: How often a recurrent convolution sees its own output; costs time, no parameters.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 19, *, turns: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTHS[0]
        self.down = nn.ModuleList(
            _Recurrent(inputs, outputs, turns) for inputs, outputs in zip((in_channels, *WIDTHS), WIDTHS, strict=False)
        )
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(_conv(deep, fine) for deep, fine in pairs)
        self.up = nn.ModuleList(_Recurrent(2 * fine, fine, turns) for _, fine in pairs)
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def features(self, x: Tensor) -> Tensor:
        """(N, 64, H, W)."""
        skips = []
        for number, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2, ceil_mode=True) if number else x)
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            skip = skips.pop()
            x = enlarge(functional.interpolate(x, size=skip.shape[2:], mode="nearest"))
            x = block(torch.cat([skip, x], dim=1))
        return x


class _Recurrent(nn.Module):
    """A pointwise convolution, then two recurrent ones with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.enter = nn.Conv2d(inputs, outputs, 1)
        self.convolutions = nn.ModuleList(_conv(outputs, outputs) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = y = self.enter(x)
        for convolution in self.convolutions:
            seen, y = y, convolution(y)
            for _ in range(self.turns):
                y = convolution(seen + y)
        return x + y


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
