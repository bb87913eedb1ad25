"""SPSSN (stage-pooling semantic segmentation network): Fast-SCNN whose every stage is pooled and added.

The paper's text names two pooling stages per module, its parameter counts fit four: `crp_stages` says which.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.nets2d.base import PlanarNet, resize
from voxpool.nets2d.blocks import ChainedResidualPooling, separable
from voxpool.nets2d.fast_scnn import (
    WIDTH,
    bottleneck_units,
    deep_branch,
    learning_to_downsample,
    pyramid,
    shallow_branch,
)

# channels of what is pooled: the start at 1/8 and the three units
_STAGES = (64, 64, 96, WIDTH)

Pooling = Literal["stage", "stream"]


class SPSSN(PlanarNet):
    """SPSSN.

    Args:
        in_channels: Channels of the image.
        num_classes: Number of classes.
        pooling: "stage": every stage's pooled maps are added to the shallow branch; "stream", the paper's ablation:
            each is handed on to the next, and only the last is added.
        crp_stages: Poolings of each module.
        keep_size: Whether the first unit does not downsample, as for CamVid.

    Raises:
        UsageError: If the pooling is neither.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 19,
        *,
        pooling: Pooling = "stage",
        crp_stages: int = 4,
        keep_size: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in ("stage", "stream"):
            raise UsageError(f"pooling must be stage or stream, got {pooling!r}")
        self.num_classes = num_classes
        self.feature_channels = WIDTH
        self.pooling = pooling
        self.downsample = learning_to_downsample(in_channels)
        self.units = bottleneck_units(first_stride=1 if keep_size else 2)
        self.deep, self.shallow = deep_branch(), shallow_branch()
        self.narrow = nn.ModuleList(_pointwise(channels) for channels in _STAGES)
        self.chains = nn.ModuleList(ChainedResidualPooling(WIDTH, stages=crp_stages, kernel=1) for _ in _STAGES)
        handed_on = len(_STAGES) - 1 if pooling == "stream" else 0
        self.previous = nn.ModuleList(_pointwise(WIDTH) for _ in range(handed_on))
        self.pyramid = pyramid()
        self.refine = nn.Sequential(separable(WIDTH, WIDTH), separable(WIDTH, WIDTH))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(WIDTH, num_classes, 1))

    def features(self, x: Tensor) -> Tensor:
        """(N, 128, H / 8, W / 8)."""
        stages = [self.downsample(x)]
        for unit in self.units:
            stages.append(unit(stages[-1]))
        size = stages[0].shape[2:]
        fused = self.shallow(stages[0])
        if self.pooling == "stage":
            for stage, narrow, chain in zip(stages, self.narrow, self.chains, strict=True):
                fused = fused + resize(chain(narrow(stage)), size)
        else:
            stream = self.chains[0](self.narrow[0](stages[0]))
            for stage, narrow, chain, previous in zip(
                stages[1:], self.narrow[1:], self.chains[1:], self.previous, strict=True
            ):
                stream = chain(resize(narrow(stage), size) + previous(stream))
            fused = fused + stream
        return self.refine(functional.relu(fused + self.deep(resize(self.pyramid(stages[-1]), size))))


def _pointwise(inputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, WIDTH, 1, bias=False)
