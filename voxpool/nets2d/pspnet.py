"""PSPNet (Zhao, Shi, Qi, Wang, Jia 2017): a dilated ResNet and a pyramid of means over the whole image."""

from torch import Tensor, nn

from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.blocks import PyramidPooling, conv_bn_act
from voxpool.nets2d.encoders import ResNet

WIDTH = 512


class PSPNet(PlanarNet):
    """PSPNet.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        depth: Of the ResNet: 50 or 101 in the papers.
        deep_stem: Three 3 × 3 convolutions at the start, as in the authors' code, or one of 7 × 7.
        auxiliary: Channels of the auxiliary head after the third stage: 256 in the paper, 512 in the comparison whose
            count is given; 0 for none.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 19,
        *,
        depth: int = 50,
        deep_stem: bool = True,
        auxiliary: int = 512,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.encoder = ResNet(depth, in_channels, output_stride=8, deep_stem=deep_stem)
        *_, third, last = self.encoder.channels
        self.pyramid = PyramidPooling(last, last // 4)
        self.fuse = conv_bn_act(self.pyramid.out_channels, WIDTH)
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(WIDTH, num_classes, 1))
        self.auxiliary = (
            nn.Sequential(conv_bn_act(third, auxiliary), nn.Dropout2d(0.1), nn.Conv2d(auxiliary, num_classes, 1))
            if auxiliary
            else None
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, 512, H / 8, W / 8)."""
        return self.fuse(self.pyramid(self.encoder(x)[-1]))

    def training_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The features, and the auxiliary head's scores of the third stage; their loss counts 0.4 in the paper."""
        *_, third, last = self.encoder(x)
        auxiliary = () if self.auxiliary is None else (self.auxiliary(third),)
        return self.fuse(self.pyramid(last)), auxiliary
