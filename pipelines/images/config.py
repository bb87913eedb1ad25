"""Options of `voxpool train2d`, checked once."""

from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from voxpool.nets2d import PLANAR_NETS
from voxpool_pipelines.arguments import checked

BASE, SUPERPIXELS = "base", "superpixels"
Pair = tuple[int, int]


class ImagesConfig(pydantic.BaseModel):
    """Options of `voxpool train2d`, as stored in `run.json`; a run is resumed only with those it was started with."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    nets: tuple[str, ...] = ("enet",)
    heads: tuple[Literal["base", "superpixels"], ...] = (BASE, SUPERPIXELS)
    size: Pair | None = None
    crop: Pair | None = None
    iterations: int | None = pydantic.Field(None, ge=1)
    epochs: float | None = pydantic.Field(None, gt=0)
    # networks that normalise means over the image need two of them
    batch_size: int = pydantic.Field(8, ge=2)
    optimizer: Literal["adam", "sgd"] = "sgd"
    learning_rate: float = pydantic.Field(1e-2, gt=0)
    poly_power: float = pydantic.Field(0.9, ge=0)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    class_weights: Literal["none", "log"] = "none"
    n_superpixels: int = pydantic.Field(1000, ge=1)
    compactness: float = pydantic.Field(0.1, gt=0)
    scale: tuple[float, float] = (0.5, 2.0)
    encoder: str | None = None
    seed: int = pydantic.Field(0, ge=0)
    amp: Literal["auto", "bf16", "off"] = "auto"

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "ImagesConfig":
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give either --iterations or --epochs")
        unknown = [name for name in self.nets if name not in PLANAR_NETS]
        if unknown:
            raise ValueError(f"unknown network {unknown[0]!r}; take some of {', '.join(PLANAR_NETS)}")
        for name, pair in (("--size", self.size), ("--crop", self.crop)):
            if pair and min(pair) < 32:
                raise ValueError(f"{name} must be at least 32 pixels high and wide, got {pair[0]} {pair[1]}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"--scale takes the smallest and the largest factor, got {self.scale[0]} {self.scale[1]}")
        return self


@dataclass(frozen=True)
class ImageVariant:
    """One row of the report.

    Attributes:
        net: Name of the network.
        head: "base" or "superpixels".
    """

    net: str
    head: str

    @property
    def id(self) -> str:
        """Name in folders and tables, such as enet-superpixels."""
        return f"{self.net}-{self.head}"


def variants(config: ImagesConfig) -> list[ImageVariant]:
    """What a run trains, in order."""
    return [ImageVariant(net, head) for net in config.nets for head in config.heads]


def net_options(net: str, layout: str) -> dict[str, Any]:
    """Options of a network for a data set, where its paper changes it: SPSSN keeps CamVid's small images larger."""
    return {"keep_size": True} if net == "spssn" and layout == "camvid" else {}


def parse_images_config(**options: Any) -> ImagesConfig:
    """The checked options.

    Raises:
        UsageError: With one sentence on the first thing wrong.
    """
    return checked(ImagesConfig, options)
