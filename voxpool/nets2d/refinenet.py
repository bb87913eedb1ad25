"""RefineNet (Lin, Milan, Shen, Reid 2017) and its light-weight form (Nekrasov, Shen, Reid 2018)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.blocks import ChainedResidualPooling
from voxpool.nets2d.encoders import ResNet

WIDTH = 256
_TWO, _THREE = 2, 3  # residual units before and after


class RefineNet(PlanarNet):
    """RefineNet: from the coarsest stage on, each is refined by the next finer one.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 50, 101 or 152.
        light: The light-weight form: 1 × 1 instead of 3 × 3 convolutions, and no residual units.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 21, *, depth: int = 101, light: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.encoder = ResNet(depth, in_channels)
        kernel = 1 if light else 3
        widths = (2 * WIDTH, WIDTH, WIDTH, WIDTH)  # coarse to fine
        self.narrow = nn.ModuleList(
            _conv(inputs, outputs, kernel) for inputs, outputs in zip(self.encoder.channels[::-1], widths, strict=True)
        )
        self.enter, self.pool, self.leave = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width in widths:
            self.enter.append(_units(width, 0 if light else _TWO))
            self.pool.append(ChainedResidualPooling(width, kernel=kernel))
            self.leave.append(_units(width, 0 if light else _THREE))
        # both paths of a fusion, and the coarsest stage's width brought to the others' by its own
        self.from_coarse = nn.ModuleList(_conv(coarse, fine, kernel) for coarse, fine in pairwise(widths))
        self.from_fine = nn.ModuleList(_conv(fine, fine, kernel) for fine in widths[1:])
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(WIDTH, num_classes, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        """(N, 256, H / 4, W / 4)."""
        stages = self.encoder(x)[::-1]
        x = self.narrow[0](self.drop(stages[0]))
        x = self.leave[0](self.pool[0](self.enter[0](x)))
        for number, stage in enumerate(stages[1:], start=1):
            finer = self.narrow[number](self.drop(stage) if number == 1 else stage)
            finer = self.from_fine[number - 1](self.enter[number](finer))
            coarser = self.from_coarse[number - 1](x)
            x = functional.relu(finer + resize(coarser, finer.shape[2:]))
            x = self.leave[number](self.pool[number](x))
        return x


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = _conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(functional.relu(x))))


def _units(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_ResidualUnit(channels) for _ in range(count)))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
