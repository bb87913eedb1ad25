"""Features of several scales brought to full resolution, and their joint classifier."""

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn


class ScaleDecoder(nn.Module):
    """Bring one scale to full resolution: transposed convolution C to C, then ReLU.

    Args:
        channels: Feature channels of the scale, kept.
        stride: Down-sampling factor of the scale (1, 2, 4, 8).
        spatial_dims: 2 or 3.
    """

    def __init__(self, channels: int, stride: int, *, spatial_dims: int = 3) -> None:
        super().__init__()
        # kernel = stride + 2 and padding 1 give exactly `stride` times the input size
        self.up = Conv["convtrans", spatial_dims](channels, channels, stride + 2, stride=stride, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *S) to (N, C, *(stride * S))."""
        return self.activation(self.up(x))


class SumOfScales(nn.Module):
    """Final classifier: one 3x3x3 convolution per scale, class scores summed.

    The sum equals ONE convolution of the channel-concatenated scales, so "the final 3x3x3 convolution" of
    Schuurmans et al. (2018) is well defined for any number of scales, and no concatenated volume is needed.

    Args:
        channels: Feature channels of each scale.
        num_classes: Number of classes, background included.
        spatial_dims: 2 or 3.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, spatial_dims: int = 3) -> None:
        super().__init__()
        conv = Conv["conv", spatial_dims]
        self.classifiers = nn.ModuleList(conv(c, num_classes, 3, padding=1) for c in channels)

    def per_scale(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Class scores of each scale alone, (N, num_classes, *S) each, for deep supervision."""
        return tuple(classify(scale) for classify, scale in zip(self.classifiers, features, strict=True))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map scales (N, C_i, *S) to class scores (N, num_classes, *S)."""
        first, *rest = self.per_scale(features)
        for scores in rest:
            first = first + scores
        return first
