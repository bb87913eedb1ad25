"""What every network for images offers."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class PlanarNet(nn.Module):
    """A network for images: features on a coarser grid, class scores of them, enlarged to the image.

    A network sets `feature_channels` and `head`, and says in `features` what the head gets: the last maps before
    the classifier. A superpixel branch adds to the scores what it makes of the same features.

    Attributes:
        num_classes: Number of classes, background included.
        feature_channels: Channels of what `features` gives.
        stride: What the sides of an image must be a multiple of: 1, any size will do.
        head: Features (N, feature_channels, h, w) to class scores (N, num_classes, h', w').
    """

    num_classes: int
    feature_channels: int
    stride = 1
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """The last maps before the classifier, (N, feature_channels, h, w), of an image (N, C, H, W)."""
        raise NotImplementedError  # each network says it

    def scores(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Class scores (N, num_classes, *size) of what `features` gave."""
        return resize(self.head(features), size)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, num_classes, H, W) of an image (N, C, H, W)."""
        return self.scores(self.features(x), x.shape[2:])

    def training_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What `features` gives, and the auxiliary heads' scores (N, num_classes, h, w), of which most have none."""
        return self.features(x), ()

    def training_scores(self, x: Tensor) -> tuple[Tensor, ...]:
        """The scores that a training judges, (N, num_classes, H, W) each: the network's own, then auxiliary ones."""
        features, auxiliary = self.training_features(x)
        size = x.shape[2:]
        return (self.scores(features, size), *(resize(scores, size) for scores in auxiliary))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, h, w) on a grid of this size, bilinear; as they are where they have it."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
