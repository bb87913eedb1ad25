"""Steps of intensity as data: what a model of another program does with grey values before its network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monai.transforms import NormalizeIntensityd, ScaleIntensityd, ScaleIntensityRanged, Transform

Value = bool | int | float | None

STEPS: dict[str, Callable[..., Transform]] = {
    "ScaleIntensityRange": ScaleIntensityRanged,
    "ScaleIntensity": ScaleIntensityd,
    "NormalizeIntensity": NormalizeIntensityd,
}
"""MONAI's transforms by the name that a description gives them."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "ScaleIntensityRange": ("a_min", "a_max", "b_min", "b_max", "clip"),
    "ScaleIntensity": ("minv", "maxv", "factor", "channel_wise"),
    "NormalizeIntensity": ("subtrahend", "divisor", "nonzero", "channel_wise"),
}
"""What each of them may be given."""


@dataclass(frozen=True)
class IntensityStep:
    """One step of intensity.

    Attributes:
        name: A key of `STEPS`.
        options: Its options, of those in `OPTIONS`.

    Raises:
        ValueError: If the step or an option is unknown, or an option is no number.
    """

    name: str
    options: dict[str, Value]

    def __post_init__(self) -> None:
        if self.name not in STEPS:
            raise ValueError(f"unknown step of intensity {self.name!r}; known are {', '.join(STEPS)}")
        unknown = [option for option in self.options if option not in OPTIONS[self.name]]
        if unknown:
            raise ValueError(f"{self.name} takes {', '.join(OPTIONS[self.name])}, not {', '.join(unknown)}")
        for option, value in self.options.items():
            if value is not None and not isinstance(value, (bool, int, float)):
                raise ValueError(f"{self.name} needs a number for {option}, not {value!r}")


def intensity_transforms(steps: Sequence[IntensityStep], key: str) -> list[Transform]:
    """MONAI's transforms of the image under a key, in the order of the steps."""
    return [STEPS[step.name](keys=key, **step.options) for step in steps]
