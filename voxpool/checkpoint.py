"""The state of a training on disk: written whole or not at all, and read without running code."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxpool.errors import ModelError
from voxpool.io import atomic_path
from voxpool.training_log import RunningMean


def save_checkpoint(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    done: int,
    seconds: float,
    running: RunningMean,
) -> None:
    """Write all that a training needs to go on; an older checkpoint is replaced when the new one is whole.

    Args:
        path: Where.
        net: The network.
        optimizer: Its optimiser.
        config: Plain values that say which training this is.
        done: Steps done.
        seconds: Time they took.
        running: Means of loss and Dice.
    """
    state = {
        "config": config,
        "iteration": done,
        "seconds": float(seconds),
        "loss": float(running.loss),
        "dice": float(running.dice),
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_path(path) as part:
        torch.save(state, part)


def load_checkpoint(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]
) -> dict[str, Any]:
    """Put a network and its optimiser where an interrupted training stood.

    Args:
        path: Where a checkpoint may be; without one nothing is changed.
        net: The network.
        optimizer: Its optimiser.
        config: As in `save_checkpoint`.

    Returns:
        "iteration", "seconds", "loss" and "dice".

    Raises:
        ModelError: If the checkpoint is damaged, holds more than tensors, or is of another configuration.
    """
    if not path.exists():
        return {"iteration": 0, "seconds": 0.0, "loss": float("nan"), "dice": float("nan")}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage as RuntimeError, UnpicklingError, EOFError and others
        raise ModelError(f"{path.name} cannot be read ({error}); delete it to train from the start (E502)") from error
    if state["config"] != config:
        raise ModelError(f"{path.name} is of a training with other options; delete it or use another run folder (E504)")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return state
