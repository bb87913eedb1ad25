"""Supervoxel heads V1, V2 and V3 for any network that separates features from its final layer.

Schuurmans, Berman, Blaschko: Efficient semantic image segmentation with superpixel pooling (2018), Section 3.2.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn

from voxpool.errors import UsageError
from voxpool.ops import Supervoxels, segment_pool, segment_unpool

Version = Literal["v1", "v2", "v3"]
Reduce = Literal["max", "mean", "sum"]
VERSIONS: tuple[Version, ...] = get_args(Version)


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
        reduce: Pooling; the paper's choice is "max".

    Raises:
        UsageError: If `version` is unknown.
    """

    def __init__(self, base: nn.Module, version: Version, *, reduce: Reduce = "max") -> None:
        super().__init__()
        if version not in VERSIONS:
            raise UsageError(f"head must be one of {', '.join(VERSIONS)}, got {version!r}")
        parts = cast(BaseNet, base)
        self.version = version
        self.reduce = reduce
        self.num_classes = parts.num_classes
        self.stride = parts.stride
        self.receptive_radius = parts.receptive_radius
        self.supervoxel_classifier = None if version == "v1" else nn.Linear(parts.feature_channels, parts.num_classes)
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

    def pool(self, maps: Sequence[Tensor], segments: Tensor | Supervoxels, num_segments: int | None = None) -> Tensor:
        """Pool maps (N, C_i, *S) inside supervoxels and join their channels, (N, sum of C_i, K)."""
        return torch.cat([segment_pool(m, segments, num_segments, reduce=self.reduce) for m in maps], dim=1)

    def segment_scores(self, x: Tensor, segments: Tensor | Supervoxels, num_segments: int | None = None) -> Tensor:
        """Class scores of supervoxels, without painting them back: all that V1 and V2 say about an image.

        Args:
            x: Image, (N, C, *S).
            segments: As in `forward`.
            num_segments: As in `forward`.

        Returns:
            Class scores, (N, num_classes, K).

        Raises:
            UsageError: For V3, whose scores differ from voxel to voxel.
        """
        if self.version == "v3":
            raise UsageError("a v3 head scores voxels, not supervoxels alone; call the network itself")
        maps, _ = self.voxel_maps(x)
        return self._score_pooled(maps, segments, num_segments)

    def forward(self, x: Tensor, segments: Tensor | Supervoxels, num_segments: int | None = None) -> Tensor:
        """Class scores of an image with its supervoxels.

        Args:
            x: Image, (N, C, *S).
            segments: Supervoxel ids 0 to num_segments - 1, -1 for none, (N, *S); or `Supervoxels`, checked and
                prepared once for all maps that are pooled.
            num_segments: Number of supervoxels K; left out with `Supervoxels`.

        Returns:
            Class scores, (N, num_classes, *S).
        """
        if self.version != "v3":
            return segment_unpool(self.segment_scores(x, segments, num_segments), segments)
        maps, scores = self.voxel_maps(x)
        return segment_unpool(self._score_pooled(maps, segments, num_segments), segments, scores)

    def _score_pooled(self, maps: Sequence[Tensor], segments: Tensor | Supervoxels, num_segments: int | None) -> Tensor:
        return self.classify(self.pool(maps, segments, num_segments)).to(maps[0].dtype)
