"""SegNet (Badrinarayanan, Kendall, Cipolla 2017): VGG-16, and its mirror that puts maxima back where they were."""

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import VGG16, VGG_WIDTHS, vgg_stage, vgg_stages


class SegNet(PlanarNet):
    """SegNet.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 11) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = VGG_WIDTHS[0]
        self.encoder = vgg_stages(in_channels, norm=True)
        narrower = (*VGG_WIDTHS[-2::-1], VGG_WIDTHS[0])
        self.decoder = nn.ModuleList()
        for width, after, count in zip(VGG_WIDTHS[::-1], narrower, VGG16[::-1], strict=True):
            last = len(self.decoder) == len(VGG16) - 1
            same = vgg_stage(width, width, count - 1, norm=True)
            # the last stage's second convolution is the classifier
            self.decoder.append(same if last else nn.Sequential(*same, *vgg_stage(width, after, 1, norm=True)))
        self.head = nn.Conv2d(VGG_WIDTHS[0], num_classes, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        """(N, 64, H, W)."""
        places, sizes = [], []
        for stage in self.encoder:
            x = stage(x)
            sizes.append(x.shape[2:])
            x, where = functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            places.append(where)
        for stage in self.decoder:
            x = stage(functional.max_unpool2d(x, places.pop(), [2, 2], output_size=list(sizes.pop())))
        return x
