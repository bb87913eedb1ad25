"""DeepLab v3 (Chen, Papandreou, Schroff, Adam 2017): ASPP with batch norms and the mean over the whole image."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.blocks import conv_bn_act
from voxpool.nets2d.encoders import ResNet

WIDTH = 256
RATES = (12, 24, 36)
"""At an output stride of 8; half of it at 16."""


class DeepLabV3(PlanarNet):
    """DeepLab v3.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 50 or 101.
        output_stride: 8, or 16 as the paper trains it.
        multi_grid: Factors of the last stage's dilations: (1, 2, 4) in the paper, (1,) in the common implementation.
        auxiliary: Whether the third stage is scored too while training.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 21,
        *,
        depth: int = 101,
        output_stride: int = 8,
        multi_grid: tuple[int, ...] = (1,),
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.encoder = ResNet(depth, in_channels, output_stride=output_stride, multi_grid=multi_grid)
        *_, third, last = self.encoder.channels
        rates = [rate * 8 // output_stride for rate in RATES]
        self.reaches = nn.ModuleList(
            [conv_bn_act(last, WIDTH, kernel=1), *(conv_bn_act(last, WIDTH, dilation=rate) for rate in rates)]
        )
        self.mean = conv_bn_act(last, WIDTH, kernel=1)
        self.fuse = nn.Sequential(conv_bn_act((len(rates) + 2) * WIDTH, WIDTH, kernel=1), nn.Dropout(0.5))
        self.refine = conv_bn_act(WIDTH, WIDTH)
        self.head = nn.Conv2d(WIDTH, num_classes, 1)
        self.auxiliary = (
            nn.Sequential(conv_bn_act(third, WIDTH), nn.Dropout(0.1), nn.Conv2d(WIDTH, num_classes, 1))
            if auxiliary
            else None
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, 256, H / 8, W / 8)."""
        return self._joined(self.encoder(x)[-1])

    def training_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The features, and the scores of the third stage."""
        *_, third, last = self.encoder(x)
        return self._joined(last), () if self.auxiliary is None else (self.auxiliary(third),)

    def _joined(self, x: Tensor) -> Tensor:
        mean = resize(self.mean(functional.adaptive_avg_pool2d(x, 1)), x.shape[2:])
        return self.refine(self.fuse(torch.cat([*(reach(x) for reach in self.reaches), mean], dim=1)))
