"""Options of a cross-validation, checked once, and the variants that they ask for."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from voxpool.nets import HEADS
from voxpool_pipelines.arguments import checked

Segments = Literal["block", "slic"]
CONTROL = "control"
BASE = "base"
GUIDED = "guided_voxresnet"


class CrossvalConfig(pydantic.BaseModel):
    """Options of `voxpool crossval`, as stored in `run.json`.

    A run is resumed only with the options it was started with.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    folds: int = pydantic.Field(3, ge=2)
    only_folds: tuple[int, ...] | None = None
    nets: tuple[str, ...] = ("voxresnet",)
    init: str | None = None
    convention: str = "ventricles-only"
    reductions: tuple[int, ...] = (1, 4, 8)
    heads: tuple[str, ...] = (BASE, "v1", "v2", "v3")
    segments: tuple[Segments, ...] = ("block", "slic")
    control: bool = True
    iterations: int | None = pydantic.Field(None, ge=1)
    minutes: float | None = pydantic.Field(None, gt=0)
    finetune_share: float = pydantic.Field(0.25, gt=0, le=1)
    crop: int = pydantic.Field(96, ge=16)
    batch_size: int = pydantic.Field(1, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = pydantic.Field(4e-3, gt=0)
    finetune_learning_rate: float = pydantic.Field(1e-3, gt=0)
    auxiliary_weight: float = pydantic.Field(0.3, ge=0)
    n_segments: int | None = pydantic.Field(None, ge=2)
    target_oracle: float = pydantic.Field(0.95, gt=0, lt=1)
    compactness: Literal["auto"] | Annotated[float, pydantic.Field(gt=0)] = 0.1
    spacing: tuple[float, float, float] | Literal["auto", "native"] = "auto"
    group_by_subject: bool = True
    seed: int = pydantic.Field(0, ge=0)
    deterministic: bool = False
    amp: Literal["auto", "bf16", "off"] = "auto"

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "CrossvalConfig":
        if (self.iterations is None) == (self.minutes is None):
            raise ValueError("give either --iterations or --minutes")
        if self.deterministic and self.minutes is not None:
            raise ValueError("--deterministic needs --iterations, since minutes depend on the machine")
        if self.compactness == "auto" and self.n_segments is not None:
            raise ValueError("--compactness auto chooses it together with the number: leave --n-segments out")
        unknown = set(self.heads) - {BASE, *HEADS}
        if unknown:
            raise ValueError(f"unknown head {sorted(unknown)[0]!r}; take {BASE}, {', '.join(HEADS)}")
        if self.crop % 8:
            raise ValueError(f"--crop must be a multiple of 8, got {self.crop}")
        if self.only_folds and not set(self.only_folds) <= set(range(self.folds)):
            raise ValueError(f"--only-folds must name folds 0 to {self.folds - 1}, got {self.only_folds}")
        return self


def parse_config(**options: Any) -> CrossvalConfig:
    """The checked options.

    Raises:
        UsageError: With one sentence on the first thing wrong.
    """
    return checked(CrossvalConfig, options)


@dataclass(frozen=True)
class NetSpec:
    """A base network of a run.

    Attributes:
        net: Name in `voxpool.nets.NETS`.
        reduction: VoxResNet's factor f, or None for other networks.
    """

    net: str
    reduction: int | None

    @property
    def id(self) -> str:
        """Name in folders and tables."""
        return self.net if self.reduction is None else f"{self.net}-r{self.reduction}"

    @property
    def options(self) -> dict[str, int]:
        """Options for `create_net`."""
        return {} if self.reduction is None else {"reduction": self.reduction}


@dataclass(frozen=True)
class Variant:
    """One row of the report: a network with a head and a kind of supervoxels.

    Attributes:
        spec: The base network.
        head: "base", "control" (the base trained on for the heads' share), or a key of `voxpool.nets.HEADS`.
        segments: "block" or "slic" for a supervoxel head, else None.
    """

    spec: NetSpec
    head: str
    segments: Segments | None = None

    @property
    def id(self) -> str:
        """Name in folders and tables, such as voxresnet-r8-v3-slic."""
        parts = [self.spec.id, self.head, *([self.segments] if self.segments else [])]
        return "-".join(parts)

    @property
    def net_head(self) -> str:
        """The head for `create_net`: a control is a base network."""
        return BASE if self.head == CONTROL else self.head

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "id": self.id,
            "net": self.spec.net,
            "reduction": self.spec.reduction,
            "head": self.head,
            "segments": self.segments,
        }


def net_specs(config: CrossvalConfig) -> list[NetSpec]:
    """The base networks of a run; reductions multiply VoxResNet alone, and `init` adds what is fine-tuned from it."""
    fine_tuned = (GUIDED,) if config.init is not None and GUIDED not in config.nets else ()
    return [
        NetSpec(net, reduction)
        for net in config.nets + fine_tuned
        for reduction in (config.reductions if net == "voxresnet" else (None,))
    ]


def head_variants(config: CrossvalConfig, spec: NetSpec) -> list[Variant]:
    """What is fine-tuned from a base network: the control first, then every head on every kind of supervoxels."""
    heads = [head for head in config.heads if head != BASE]
    if not heads:
        return []
    control = [Variant(spec, CONTROL)] if config.control else []
    return control + [Variant(spec, head, segments) for head in heads for segments in config.segments]
