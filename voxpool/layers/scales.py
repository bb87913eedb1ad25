"""Features of several scales brought to full resolution, and their joint classifier."""

from collections.abc import Callable, Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn


class ScaleDecoder(nn.Module):
    """Bring one scale to full resolution: transposed convolution, then ReLU.

    Args:
        channels: Feature channels of the scale.
        stride: Down-sampling factor of the scale (1, 2, 4, 8).
        out_channels: Feature channels at full resolution; as many as the scale has where None, as in the paper.
        norm: Makes a normalisation of so many channels, which comes first, with a ReLU; None as in the paper.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        out_channels: int | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        up = Conv["convtrans", spatial_dims]
        self.normal = nn.Sequential(norm(channels), nn.ReLU()) if norm else nn.Identity()
        # kernel = stride + 2 and padding 1 give exactly `stride` times the input size
        self.up = up(channels, out_channels or channels, stride + 2, stride=stride, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *S) to (N, out_channels, *(stride * S))."""
        return self.activation(self.up(self.normal(x)))


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
