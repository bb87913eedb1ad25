"""Maps and supervoxels to pool: sizes as in practice, supervoxels as ragged as SLIC makes them."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from voxpool import slic
from voxpool.data.phantom import phantom
from voxpool.ops import Supervoxels


@dataclass(frozen=True)
class Case:
    """One map to pool.

    Attributes:
        channels: Number of channels C.
        space: Voxels per axis.
        n_segments: Approximate number of SLIC supervoxels.
        dtype: Of the map.
        channels_last: Whether the channels of a voxel lie together.
    """

    channels: int
    space: tuple[int, ...]
    n_segments: int
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @property
    def voxels(self) -> int:
        """Number of voxels P."""
        return math.prod(self.space)

    @property
    def layout(self) -> str:
        """How the map lies in memory."""
        return "channels-last" if self.channels_last else "contiguous"

    @property
    def plain(self) -> bool:
        """Whether it is float32 and contiguous, as the peers want it."""
        return self.dtype == torch.float32 and not self.channels_last

    @property
    def title(self) -> str:
        """Such as `64 x 128x128x128 float32`."""
        kind = str(self.dtype).removeprefix("torch.") + (", channels-last" if self.channels_last else "")
        return f"{self.channels} x {'x'.join(map(str, self.space))} {kind}"


_LARGE = Case(64, (128, 128, 128), 2000)
_SMALL = Case(5, (20, 24, 16), 60)

CASES = (
    _LARGE,
    Case(32, (160, 192, 160), 2000),
    Case(4, (160, 192, 160), 2000),
    replace(_LARGE, channels_last=True),
    replace(_LARGE, dtype=torch.bfloat16),
)
"""What is timed by default."""

QUICK_CASES = (_SMALL, replace(_SMALL, channels_last=True), replace(_SMALL, dtype=torch.bfloat16))
"""The same kinds, small: to see that everything runs. Their times say nothing."""

SWEEPS = {
    "voxels": tuple(Case(16, (side,) * 3, 1000) for side in (32, 48, 64, 96, 128, 160)),
    "segments": tuple(Case(16, (128, 128, 128), n) for n in (10, 100, 1000, 10_000, 100_000)),
}
"""The paper's Figure 3: time over the size of the image and over the number of supervoxels."""

QUICK_SWEEPS = {
    "voxels": tuple(Case(2, (side,) * 3, 30) for side in (16, 24)),
    "segments": tuple(Case(2, (20, 20, 20), n) for n in (10, 80)),
}
"""The same, small."""


@dataclass(frozen=True)
class Inputs:
    """What the methods get; a sample of one.

    Attributes:
        x: Map (1, C, *S) of the case's dtype and layout; in float32 no two values of a channel are equal.
        supervoxels: Ids (1, *S), prepared once.
        grad: Gradient of the pooled values, (1, C, K).
    """

    x: Tensor
    supervoxels: Supervoxels
    grad: Tensor

    @cached_property
    def flat(self) -> Tensor:
        """The map as (C, P); for contiguous maps."""
        return self.x.view(self.x.shape[1], -1)

    @cached_property
    def ids(self) -> Tensor:
        """Segment ids (P,), int32."""
        return self.supervoxels.segments.view(-1)

    @cached_property
    def index(self) -> Tensor:
        """Segment ids as torch's own operations want them: (C, P) int64, the channels sharing their memory."""
        return self.ids.long().expand(self.x.shape[1], -1)

    @cached_property
    def counts(self) -> Tensor:
        """Voxels per segment, (K,) float32, at least 1."""
        return torch.bincount(self.ids.long(), minlength=self.num_segments).clamp(min=1).float()

    @property
    def num_segments(self) -> int:
        """Number of segments K."""
        return self.supervoxels.num_segments


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Make the map and supervoxels of a case, the same ones every time.

    Args:
        case: What to make.
        device: Where to put it.

    Returns:
        The inputs.
    """
    image, _ = phantom(case.space)
    segments = np.asarray(slic(image, case.n_segments))
    rng = torch.Generator().manual_seed(0)
    # permutations: equal maxima would have no unique gradient, and torch's amax shares it among them
    scale = 2.0 ** -math.ceil(math.log2(case.voxels))
    x = torch.empty((1, case.channels, *case.space))
    for channel in x[0]:
        channel.view(-1).copy_(torch.randperm(case.voxels, generator=rng)).mul_(scale).sub_(0.5)
    num_segments = int(segments.max()) + 1
    grad = torch.randn((1, case.channels, num_segments), generator=rng).to(device, case.dtype)
    x = x.to(device, case.dtype)
    if case.channels_last:
        x = x.to(memory_format=torch.channels_last_3d)
    return Inputs(x, Supervoxels.of(torch.from_numpy(segments).unsqueeze(0).to(device), num_segments), grad)
