"""FCN-32s, 16s and 8s (Long, Shelhamer, Darrell 2015): VGG-16 made convolutional, its coarser scores refined.

In the modern form: the 7 × 7 layer is padded by 3, where the paper pads the image by 100, so sizes fit without crops.
The deconvolutions are the paper's: bilinear at the start, weights between all classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import VGG_WIDTHS, vgg_stages

WIDTH = 4096


class FCN(PlanarNet):
    """FCN on VGG-16.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        stride: Grid of the finest scores: 32, 16 or 8 pixels.

    Raises:
        UsageError: If the stride is none of these.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 21, *, stride: int = 8) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise UsageError(f"stride must be 8, 16 or 32, got {stride}")
        self.num_classes = self.feature_channels = num_classes
        self.stages = vgg_stages(in_channels)
        self.classifier = nn.Sequential(
            nn.Conv2d(VGG_WIDTHS[-1], WIDTH, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
        )
        self.score = nn.Conv2d(WIDTH, num_classes, 1)
        skips = {32: (), 16: (3,), 8: (3, 2)}[stride]  # stages whose pooled maps are scored too
        self.from_stages = skips
        self.skip_scores = nn.ModuleList(nn.Conv2d(VGG_WIDTHS[stage], num_classes, 1) for stage in skips)
        self.ups = nn.ModuleList(_bilinear(num_classes, 2) for _ in skips)
        self.head = nn.Identity()
        self.last = _bilinear(num_classes, stride)

    def features(self, x: Tensor) -> Tensor:
        """The finest scores, (N, num_classes, H / stride, W / stride): the network has no maps but scores there."""
        pooled = []
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2, ceil_mode=True)
            pooled.append(x)
        scores = self.score(self.classifier(x))
        for number, skip, up in zip(self.from_stages, self.skip_scores, self.ups, strict=True):
            finer = skip(pooled[number])
            scores = _cropped(up(scores), finer.shape[2:]) + finer
        return scores

    def scores(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """The scores enlarged by the trained deconvolution, (N, num_classes, *size)."""
        return _cropped(self.last(self.head(features)), size)


def _cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    return x[:, :, : size[0], : size[1]]


def _bilinear(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Enlarge by a factor, bilinear until it is trained."""
    kernel = 2 * factor
    up = nn.ConvTranspose2d(channels, channels, kernel, factor, factor // 2, bias=False)
    centre = factor - 0.5
    ramp = 1 - (torch.arange(kernel) - centre).abs() / factor
    with torch.no_grad():
        up.weight.zero_()
        up.weight[range(channels), range(channels)] = ramp[:, None] * ramp
    return up
