"""The residual unit of VoxResNet."""

from collections.abc import Callable

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn


class PreActivationResidual(nn.Module):
    """VoxRes module: norm, ReLU, conv, norm, ReLU, conv, plus the identity (Chen et al. 2018, Fig. 1).

    Args:
        channels: Number of feature channels, kept.
        spatial_dims: 2 or 3.
        norm: Makes a normalisation of so many channels; by default batch normalisation, as in the paper.
    """

    def __init__(self, channels: int, *, spatial_dims: int = 3, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        conv, norm = Conv["conv", spatial_dims], norm or Norm["batch", spatial_dims]
        self.residual = nn.Sequential(
            norm(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, padding=1),
            norm(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *S) to (N, C, *S)."""
        return x + self.residual(x)
