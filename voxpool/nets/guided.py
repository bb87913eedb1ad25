"""VoxResNet for whole heads of any contrast: a coarse network says what is where, a fine one corrects every voxel.

The cascade is the auto-context idea of Chen et al. (VoxResNet, NeuroImage 170, 2018) with what the first answer tells
about the image's brightness counted in; see `voxpool.nets.guide`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxpool.nets.guide import BLOCK, COARSE, channels, look
from voxpool.nets.voxresnet import VoxResNet

_LEAST = 1e-3  # a probability that no logarithm makes count for more


class GuidedVoxResNet(nn.Module):
    """A context network for the whole head and a detail network for its voxels.

    `features` takes maps as `Guide.maps` gives them, not images: those of a part of a head give that part's features.
    Class scores begin as the logarithms of the maps' last part; the detail network learns what to add.

    Args:
        in_channels: Number of image channels: 1.
        num_classes: Number of classes, background included.
        reduction: Of the detail network, see `VoxResNet`.
        stages: Of the detail network.
        context_reduction: Of the context network.
        context_stages: Of the context network.
        decoded: Channels of each scale of the context network at its full resolution.

    Attributes:
        context: The context network, which sees the head at 1 / `COARSE` of its resolution.
        whole_stride: What every size of a whole image must be a multiple of.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 9,
        *,
        reduction: int = 4,
        stages: int = 2,
        context_reduction: int = 2,
        context_stages: int = 4,
        decoded: int = 8,
    ) -> None:
        super().__init__()
        self.context = VoxResNet(
            in_channels,
            num_classes,
            reduction=context_reduction,
            stages=context_stages,
            decoded=decoded,
            norm="instance",
        )
        self.detail = VoxResNet(channels(num_classes), num_classes, reduction=reduction, stages=stages)
        self.head = _Correction(self.detail.head)
        del self.detail.head  # it belongs to `head` now
        self.num_classes = num_classes
        self.feature_channels = self.detail.feature_channels + num_classes
        self.stride = self.detail.stride
        self.receptive_radius = self.detail.receptive_radius
        self.whole_stride = max(BLOCK, COARSE * self.context.stride)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Decoded scales of the detail network, and the logarithms of the probabilities that it corrects.

        Args:
            x: Maps, (N, 1 + 2 C, *S).
        """
        evidence = x[:, -self.num_classes :].clamp_min(_LEAST).log()
        return (*self.detail.features(x), evidence.to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, C, *S) of maps (N, 1 + 2 C, *S)."""
        return self.head(self.features(x))

    def segment_whole(self, image: Tensor) -> Tensor:
        """Class scores (N, C, *S) of whole heads (N, 1, *S), sizes multiples of `whole_stride`."""
        whole = tuple(slice(0, size) for size in image.shape[2:])
        maps = [look(self.context, one[0], bf16=False).maps(one[0], whole) for one in image]
        return self(torch.stack(maps))


class _Correction(nn.Module):
    """A classifier of features whose scores are added to what was known before."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        for layer in classifier.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.zeros_(layer.weight)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features and evidence to class scores (N, C, *S)."""
        *decoded, evidence = features
        return self.classifier(decoded) + evidence
