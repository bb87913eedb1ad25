"""Supervoxel heads V1, V2 and V3 for any network that separates features from its final layer.

Schuurmans, Berman, Blaschko: Efficient semantic image segmentation with superpixel pooling (2018), Section 3.2.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn

from voxpool.errors import UsageError
from voxpool.ops import Supervoxels, segment_pool, segment_unpool

Version = Literal["v1", "v2", "v3"]
Reduce = Literal["max", "mean", "sum", "moments"]
VERSIONS: tuple[Version, ...] = get_args(Version)
HEADS: dict[str, dict[str, Any]] = {
    "v1": {"version": "v1"},
    "v2": {"version": "v2"},
    "v3": {"version": "v3"},
    "v3stats": {"version": "v3", "reduce": "moments"},
    "v3nested": {"version": "v3", "levels": 2},
}
"""Options of `SupervoxelNet` by the name of a head: the paper's, then V3 with more to tell supervoxels by."""

_LEAST_VARIANCE = 1e-6  # keeps the slope of the standard deviation finite


class BaseNet(Protocol):
    """What a network must offer to carry a supervoxel head.

    `features(x)` maps an image (N, C, *S) to a tuple of tensors (N, C_i, *S) at full resolution, `head` maps that
    tuple to class scores (N, num_classes, *S), and the C_i sum to `feature_channels`.
    """

    num_classes: int
    feature_channels: int
    stride: int
    receptive_radius: int
    head: nn.Module

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features at full resolution."""
        ...


class SupervoxelNet(nn.Module):
    """A network with a supervoxel head.

    - `v1` pools the class scores: post-processing that training can adapt to.
    - `v2` replaces the final convolution: pooled features, then a linear layer shared by all supervoxels.
    - `v3` adds both: the final convolution corrects what the supervoxel branch says, voxel by voxel.

    V1 and V2 give every supervoxel one class (a hard constraint, bounded by the supervoxels' oracle); V3 does not.
    V1 and V3 start exactly as their base network does (V3's linear layer is zero at first). Voxels with segment
    id -1 get no supervoxel score: all zeros in V1 and V2, the voxel branch alone in V3.

    The net takes over `base`: V2 drops its final layer.

    Args:
        base: Network with `features()` and `head`, see `BaseNet`.
        version: "v1", "v2" or "v3".
        reduce: Pooling; the paper's choice is "max". "moments" pools maximum, mean and standard deviation, and joins
            them: how bright, how usual and how mixed a feature is in a supervoxel.
        levels: 2 joins to every supervoxel's maxima those of the coarser one that it is part of: its surroundings.

    Raises:
        UsageError: If `version` is unknown, or the pooling does not go with it.
    """

    def __init__(self, base: nn.Module, version: Version, *, reduce: Reduce = "max", levels: int = 1) -> None:
        super().__init__()
        if version not in VERSIONS:
            raise UsageError(f"head must be one of {', '.join(VERSIONS)}, got {version!r}")
        if version == "v1" and (reduce == "moments" or levels > 1):
            raise UsageError("v1 pools class scores, one number per class: take v2 or v3 for moments and levels")
        if levels not in (1, 2) or (levels == 2 and reduce != "max"):
            raise UsageError(f"levels must be 1, or 2 with max pooling, got {levels} with {reduce}")
        parts = cast(BaseNet, base)
        self.version = version
        self.reduce = reduce
        self.levels = levels
        self.num_classes = parts.num_classes
        self.stride = parts.stride
        self.receptive_radius = parts.receptive_radius
        width = parts.feature_channels * (3 if reduce == "moments" else 1) * levels
        self.supervoxel_classifier = None if version == "v1" else nn.Linear(width, parts.num_classes)
        if version == "v2":
            parts.head = nn.Identity()
        if version == "v3" and self.supervoxel_classifier is not None:
            nn.init.zeros_(self.supervoxel_classifier.weight)
            nn.init.zeros_(self.supervoxel_classifier.bias)
        self.base = base

    def voxel_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What is computed voxel by voxel: the maps to be pooled, and V3's own class scores.

        Args:
            x: Image, (N, C, *S).

        Returns:
            Maps (N, C_i, *S) to pool, and class scores (N, num_classes, *S) or None.
        """
        base = cast(BaseNet, self.base)
        features = base.features(x)
        if self.version == "v1":
            return (base.head(features),), None
        return features, base.head(features) if self.version == "v3" else None

    def classify(self, pooled: Tensor) -> Tensor:
        """Class scores (N, num_classes, K) of pooled maps (N, C, K)."""
        if self.supervoxel_classifier is None:
            return pooled
        return self.supervoxel_classifier(pooled.movedim(1, -1)).movedim(-1, 1)

    def pool(
        self,
        maps: Sequence[Tensor],
        segments: Tensor | Supervoxels,
        num_segments: int | None = None,
        parents: Tensor | None = None,
    ) -> Tensor:
        """Pool maps (N, C_i, *S) inside supervoxels and join what the head tells them by, (N, C, K)."""
        if self.reduce != "moments":
            pooled = [segment_pool(m, segments, num_segments, reduce=self.reduce) for m in maps]
            return self.join_levels(torch.cat(pooled, dim=1), parents)
        maxima = torch.cat([segment_pool(m, segments, num_segments) for m in maps], dim=1)
        means, squares = (
            torch.cat([segment_pool(m, segments, num_segments, reduce="mean") for m in values], dim=1)
            for values in ([m.float() for m in maps], [m.float().square() for m in maps])
        )
        return join_moments(maxima, means, squares)

    def join_levels(self, pooled: Tensor, parents: Tensor | None) -> Tensor:
        """Join to pooled maxima (N, C, K) those of the parents (N, K), where the head has two levels.

        Raises:
            UsageError: If there are no parents.
        """
        if self.levels == 1:
            return pooled
        if parents is None:
            raise UsageError("a head of two levels needs the coarse parent of every supervoxel: pass parents")
        # there are no more coarse than fine supervoxels; counting them would wait for a GPU
        coarse = segment_pool(pooled, parents, pooled.shape[-1], reduce="max")
        return torch.cat([pooled, segment_unpool(coarse, parents)], dim=1)

    def segment_scores(
        self,
        x: Tensor,
        segments: Tensor | Supervoxels,
        num_segments: int | None = None,
        parents: Tensor | None = None,
    ) -> Tensor:
        """Class scores of supervoxels, without painting them back: all that V1 and V2 say about an image.

        Args:
            x: Image, (N, C, *S).
            segments: As in `forward`.
            num_segments: As in `forward`.
            parents: As in `forward`.

        Returns:
            Class scores, (N, num_classes, K).

        Raises:
            UsageError: For V3, whose scores differ from voxel to voxel.
        """
        if self.version == "v3":
            raise UsageError("a v3 head scores voxels, not supervoxels alone; call the network itself")
        maps, _ = self.voxel_maps(x)
        return self._score_pooled(maps, segments, num_segments, parents)

    def forward(
        self,
        x: Tensor,
        segments: Tensor | Supervoxels,
        num_segments: int | None = None,
        parents: Tensor | None = None,
    ) -> Tensor:
        """Class scores of an image with its supervoxels.

        Args:
            x: Image, (N, C, *S).
            segments: Supervoxel ids 0 to num_segments - 1, -1 for none, (N, *S); or `Supervoxels`, checked and
                prepared once for all maps that are pooled.
            num_segments: Number of supervoxels K; left out with `Supervoxels`.
            parents: Id of the coarse supervoxel that each is part of, (N, K), below K, -1 for none: what
                `voxpool.ops.parents_of` gives. For a head of two levels.

        Returns:
            Class scores, (N, num_classes, *S).
        """
        if self.version != "v3":
            return segment_unpool(self.segment_scores(x, segments, num_segments, parents), segments)
        maps, scores = self.voxel_maps(x)
        return segment_unpool(self._score_pooled(maps, segments, num_segments, parents), segments, scores)

    def _score_pooled(
        self,
        maps: Sequence[Tensor],
        segments: Tensor | Supervoxels,
        num_segments: int | None,
        parents: Tensor | None,
    ) -> Tensor:
        return self.classify(self.pool(maps, segments, num_segments, parents)).to(maps[0].dtype)


def join_moments(maxima: Tensor, means: Tensor, squares: Tensor) -> Tensor:
    """Join maxima, means and standard deviations of pooled features, each (N, C, K), from the means of squares."""
    deviation = (squares - means.square()).clamp_min(_LEAST_VARIANCE).sqrt()
    return torch.cat([maxima.to(means.dtype), means, deviation], dim=1)
