"""MONAI's SegResNet as a comparator, split into features and final layer."""

from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet
from torch import Tensor, nn


class _OnlyMap(nn.Module):
    """Apply a layer to the single map of a feature tuple."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.layer(features[0])


class SegResNet(nn.Module):
    """MONAI's SegResNet (Myronenko 2018 without the autoencoder branch) with `features()` and `head`.

    Batch normalisation replaces MONAI's default group normalisation: it is local at inference, so that a volume
    in tiles gives what the whole volume gives.

    Args:
        in_channels: Number of image channels.
        num_classes: Number of classes, background included.
        spatial_dims: 2 or 3.
        init_filters: Width of the first stage.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 4, *, spatial_dims: int = 3, init_filters: int = 8
    ) -> None:
        super().__init__()
        self.net = MonaiSegResNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=num_classes,
            init_filters=init_filters,
            norm=("BATCH", {}),
        )
        # conv_final is norm, activation, 1x1x1 convolution: what comes before the convolution are the features
        *before, final = self.net.conv_final.children()
        self.net.conv_final = nn.Sequential(*before)
        self.head = _OnlyMap(final)
        self.num_classes = num_classes
        self.feature_channels = init_filters
        self.stride = 2 ** (len(self.net.blocks_down) - 1)
        self.receptive_radius = _receptive_radius(self.net.blocks_down, self.net.blocks_up)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """One map (N, init_filters, *S) of an image (N, in_channels, *S), sizes multiples of `stride`."""
        return (self.net(x),)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, num_classes, *S) of an image (N, in_channels, *S)."""
        return self.head(self.features(x))


def _receptive_radius(blocks_down: tuple[int, ...], blocks_up: tuple[int, ...]) -> int:
    """How many voxels away an input voxel can still change the class scores of a voxel."""
    radius = 1  # convInit
    for stage, blocks in enumerate(blocks_down):
        step = 2**stage
        radius += (step // 2 if stage else 0) + 2 * blocks * step
    for i, blocks in enumerate(blocks_up):
        fine = 2 ** (len(blocks_up) - 1 - i)
        radius += 2 * fine + 2 * blocks * fine  # linear upsampling reaches one coarse voxel
    return radius
