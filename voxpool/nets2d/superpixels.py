"""A superpixel branch for any network for images.

Schuurmans, Berman, Blaschko: Efficient semantic image segmentation with superpixel pooling (2018), Section 3.3: the
features before the classifier are pooled inside superpixels, classified by one linear layer, painted back and added to
the network's own scores.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from voxpool.nets2d.base import PlanarNet, resize
from voxpool.ops import Supervoxels, segment_pool, segment_unpool
from voxpool.ops.segment_pool import Reduce


class SuperpixelBranch(nn.Module):
    """A network with a superpixel branch; it begins exactly as the network alone.

    The superpixels are those of the image at full resolution: features of a coarser grid are enlarged first, each to
    the pixels of its cell, so that the painted scores follow the superpixels' borders. Pixels with id -1 get the
    network's own scores alone.

    Args:
        base: The network, taken over.
        reduce: Pooling: "max", the paper's, "mean" or "sum".
    """

    def __init__(self, base: PlanarNet, *, reduce: Reduce = "max") -> None:
        super().__init__()
        self.base = base
        self.reduce = reduce
        self.num_classes, self.stride = base.num_classes, base.stride
        self.classifier = nn.Linear(base.feature_channels, base.num_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, segments: Tensor | Supervoxels, num_segments: int | None = None) -> Tensor:
        """Class scores of an image with its superpixels.

        Args:
            x: Image, (N, C, H, W).
            segments: Ids 0 to num_segments - 1, -1 for none, (N, H, W); or `Supervoxels`.
            num_segments: Number of superpixels; left out with `Supervoxels`.

        Returns:
            Class scores, (N, num_classes, H, W).
        """
        return self._added(self.base.features(x), x.shape[2:], segments, num_segments)

    def training_scores(
        self, x: Tensor, segments: Tensor | Supervoxels, num_segments: int | None = None
    ) -> tuple[Tensor, ...]:
        """The scores that a training judges: those with the superpixels, then the network's auxiliary ones."""
        size = x.shape[2:]
        features, auxiliary = self.base.training_features(x)
        scores = self._added(features, size, segments, num_segments)
        return (scores, *(resize(each, size) for each in auxiliary))

    def _added(
        self, features: Tensor, size: Sequence[int], segments: Tensor | Supervoxels, num_segments: int | None
    ) -> Tensor:
        scores = self.base.scores(features, size)
        if tuple(features.shape[2:]) != tuple(size):
            features = functional.interpolate(features, size=tuple(size), mode="nearest-exact")
        pooled = segment_pool(features, segments, num_segments, reduce=self.reduce)  # (N, C, K)
        classified = self.classifier(pooled.movedim(1, -1)).movedim(-1, 1)
        return segment_unpool(classified.to(scores.dtype), segments, scores)
