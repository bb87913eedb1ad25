"""Draws of one number."""

import torch
from torch import Generator


def uniform(generator: Generator, low: float, high: float) -> float:
    """A number between two."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def normal(generator: Generator, deviation: float) -> float:
    """A number around 0."""
    return deviation * float(torch.randn((), generator=generator))


def chance(generator: Generator, share: float) -> bool:
    """True in a share of all draws."""
    return float(torch.rand((), generator=generator)) < share


def integer(generator: Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
