"""Fast-SCNN (Poudel, Liwicki, Cipolla 2019): a shared shallow start, a deep path at 1/32, and their fusion at 1/8."""

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.blocks import InvertedResidual, PyramidPooling, conv_bn_act, separable

WIDTH = 128
"""Channels of the fused features."""

# output channels, stride and number of inverted residuals of the deep path's three units
UNITS = ((64, 2, 3), (96, 2, 3), (WIDTH, 1, 3))


def learning_to_downsample(in_channels: int) -> nn.Sequential:
    """A convolution and two separable ones: the image at 1/8, 64 channels."""
    return nn.Sequential(
        conv_bn_act(in_channels, 32, stride=2), separable(32, 48, stride=2), separable(48, 64, stride=2)
    )


def bottleneck_units(first_stride: int = 2) -> nn.ModuleList:
    """The deep path's three units of inverted residuals.

    Args:
        first_stride: Of the first unit; SPSSN takes 1 for CamVid.
    """
    inputs, units = 64, []
    for number, (outputs, stride, count) in enumerate(UNITS):
        step = first_stride if number == 0 else stride
        blocks = [
            InvertedResidual(inputs if index == 0 else outputs, outputs, stride=step if index == 0 else 1)
            for index in range(count)
        ]
        units.append(nn.Sequential(*blocks))
        inputs = outputs
    return nn.ModuleList(units)


def pyramid(inputs: int = WIDTH) -> nn.Sequential:
    """Pyramid pooling over 1, 2, 3 and 6 cells, joined by a pointwise convolution."""
    pooling = PyramidPooling(inputs, inputs // 4)
    return nn.Sequential(pooling, conv_bn_act(pooling.out_channels, WIDTH, kernel=1))


def deep_branch() -> nn.Sequential:
    """What the fusion does to the enlarged deep features."""
    return nn.Sequential(*conv_bn_act(WIDTH, WIDTH, groups=WIDTH), nn.Conv2d(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH))


def shallow_branch() -> nn.Sequential:
    """What the fusion does to the features at 1/8."""
    return nn.Sequential(nn.Conv2d(64, WIDTH, 1), nn.BatchNorm2d(WIDTH))


class FastSCNN(PlanarNet):
    """Fast-SCNN.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 19) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.downsample = learning_to_downsample(in_channels)
        self.units = bottleneck_units()
        self.pyramid = pyramid()
        self.deep, self.shallow = deep_branch(), shallow_branch()
        self.refine = nn.Sequential(separable(WIDTH, WIDTH), separable(WIDTH, WIDTH))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(WIDTH, num_classes, 1))

    def features(self, x: Tensor) -> Tensor:
        """(N, 128, H / 8, W / 8)."""
        shallow = x = self.downsample(x)
        for unit in self.units:
            x = unit(x)
        deep = self.deep(resize(self.pyramid(x), shallow.shape[2:]))
        return self.refine(functional.relu(deep + self.shallow(shallow)))
