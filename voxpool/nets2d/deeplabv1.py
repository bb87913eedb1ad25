"""DeepLab v1, LargeFOV (Chen et al. 2015): VGG-16 at 1/8, and a 3 × 3 layer that sees far by its dilation."""

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet
from voxpool.nets2d.encoders import VGG_WIDTHS, vgg_stages


class DeepLabV1(PlanarNet):
    """DeepLab v1 LargeFOV.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        width: Channels of the two last layers.
        kernel: Side of the first of them.
        dilation: Its dilation.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 21, *, width: int = 1024, kernel: int = 3, dilation: int = 12
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = width
        self.stages = vgg_stages(in_channels, last_dilation=2)
        self.sees_far = nn.Conv2d(VGG_WIDTHS[-1], width, kernel, dilation=dilation)
        self.reach = dilation * (kernel - 1)
        self.drop = nn.Dropout2d(0.5)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.head = nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(width, num_classes, 1))

    def features(self, x: Tensor) -> Tensor:
        """(N, width, H / 8, W / 8)."""
        for number, stage in enumerate(self.stages):
            # the last two poolings keep the size
            x = functional.max_pool2d(stage(x), 3, stride=2 if number < 3 else 1, padding=1)
        before, after = self.reach // 2, self.reach - self.reach // 2  # an even kernel reaches further one way
        x = functional.relu(self.sees_far(functional.pad(x, (before, after, before, after))))
        return functional.relu(self.pointwise(self.drop(x)))
