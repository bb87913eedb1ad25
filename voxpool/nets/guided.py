"""VoxResNet for whole heads of any contrast: a coarse network says what is where, a fine one corrects every voxel.

The cascade is the auto-context idea of Chen et al. (VoxResNet, NeuroImage 170, 2018) with what the first answer tells
about the image's brightness counted in; see `voxpool.nets.guide`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxpool.errors import UsageError
from voxpool.nets.guide import BLOCK, COARSE, channels, look
from voxpool.nets.voxresnet import VoxResNet

_LEAST = 1e-3  # a probability that no logarithm makes count for more


class GuidedVoxResNet(nn.Module):
    """A context network for the whole head and a detail network for its voxels.

    `features` takes maps as `Guide.maps` gives them, not images: those of a part of a head give that part's features.
    Class scores begin as the logarithms of the maps' last part; the detail network learns what to add.

    Args:
        in_channels: Number of image channels: 1.
        num_classes: Number of classes that are scored, background included.
        merged: For a net whose context knows finer classes than are scored: the scored class of each of them.
        reduction: Of the detail network, see `VoxResNet`.
        stages: Of the detail network.
        context_reduction: Of the context network.
        context_stages: Of the context network.
        decoded: Channels of each scale of the context network at its full resolution.

    Raises:
        UsageError: If `merged` leaves out a class, or names one that is not scored.

    Attributes:
        context: The context network, which sees the head at 1 / `COARSE` of its resolution.
        context_classes: How many classes it tells apart: those of the maps.
        whole_stride: What every size of a whole image must be a multiple of.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 9,
        *,
        merged: Sequence[int] | None = None,
        reduction: int = 4,
        stages: int = 2,
        context_reduction: int = 2,
        context_stages: int = 4,
        decoded: int = 8,
    ) -> None:
        super().__init__()
        if merged is not None and set(merged) != set(range(num_classes)):
            raise UsageError(f"merged must name each of the {num_classes} classes and no other, got {list(merged)}")
        known = num_classes if merged is None else len(merged)
        self.context = VoxResNet(
            in_channels,
            known,
            reduction=context_reduction,
            stages=context_stages,
            decoded=decoded,
            norm="instance",
        )
        self.detail = VoxResNet(channels(known), known, reduction=reduction, stages=stages)
        self.head = _Correction(self.detail.head, merged)
        del self.detail.head  # it belongs to `head` now
        self.num_classes = num_classes
        self.context_classes = known
        self.feature_channels = self.detail.feature_channels + known
        self.stride = self.detail.stride
        self.receptive_radius = self.detail.receptive_radius
        self.whole_stride = max(BLOCK, COARSE * self.context.stride)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Decoded scales of the detail network, and the logarithms of the probabilities that it corrects.

        Args:
            x: Maps, (N, 1 + 2 C, *S), of C = `context_classes`.
        """
        evidence = x[:, -self.context_classes :].clamp_min(_LEAST).log()
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
    """A classifier of features whose scores are added to what was known before; finer classes are merged at the end."""

    def __init__(self, classifier: nn.Module, merged: Sequence[int] | None) -> None:
        super().__init__()
        self.classifier = classifier
        self.merged = None if merged is None else tuple(merged)
        for layer in classifier.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.zeros_(layer.weight)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features and evidence to class scores (N, C, *S)."""
        *decoded, evidence = features
        scores = self.classifier(decoded) + evidence
        return scores if self.merged is None else merge_scores(scores, self.merged, axis=1)


def merge_scores(scores: Tensor, merged: Sequence[int], *, axis: int = 0) -> Tensor:
    """Scores of coarser classes, whose probabilities are the sums of the finer ones'.

    Args:
        scores: Class scores, logarithms of probabilities but for a constant.
        merged: The coarse class of each.
        axis: Axis of the classes.
    """
    fine = scores.unbind(axis)
    groups = [
        torch.stack([fine[number] for number, coarse in enumerate(merged) if coarse == group])
        for group in range(max(merged) + 1)
    ]
    return torch.stack([group.logsumexp(0) for group in groups], dim=axis)
