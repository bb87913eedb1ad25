"""Tasks for `run_tasks` that processes find by name."""

import os
import signal
import time
from pathlib import Path

import torch
from distributed import get_worker
from torch import distributed

from voxpool.engine import TrainConfig, train
from voxpool.nets import create_net


def note(task: tuple[str, str]) -> str:
    """Write down that a task ran, and give its name with how often it did; "poison" kills its process each time.

    "slow poison" does so when the driver has heard of all that this process gave before.
    """
    folder, name = Path(task[0]), task[1]
    with (folder / "ran.txt").open("a") as file:
        file.write(f"{os.getpid()} {name}\n")
    if name.endswith("poison"):
        while name.startswith("slow") and get_worker().data:  # kept until nobody needs it
            time.sleep(0.02)  # between two looks
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name}{(folder / 'ran.txt').read_text().split().count(name)}"


def hoard(task: int) -> int:
    """Hold so many megabytes; the more, the longer."""
    block = bytearray(task * 10**6)
    for start in range(0, len(block), 4096):
        block[start] = 1
    end = time.monotonic() + task / 50
    while time.monotonic() < end:  # the memory is looked at now and then
        pass
    return len(block)


SMALL = TrainConfig(3, crop=(8, 8, 8), optimizer="sgd", learning_rate=0.05, amp="off", seed=3)


def small_net() -> torch.nn.Module:
    """A network whose layers depend on nothing but the weights."""
    torch.manual_seed(1)
    return create_net("voxresnet", 1, 3, reduction=16)


def draw(step: int) -> tuple[dict[str, torch.Tensor], None]:
    """Noise with labels, another for each step."""
    generator = torch.Generator().manual_seed(step)
    image = torch.randn(1, 1, 8, 8, 8, generator=generator)
    return {"image": image, "labels": (image[:, 0] > 0).long() + (image[:, 0] > 1).long()}, None


def train_as_rank(rank: int, meeting: str, folder: str) -> None:
    """Train as one of two processes; the first writes the weights."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    net = small_net()
    train(net, draw, SMALL, folder=Path(folder) / "training")
    if rank == 0:
        torch.save(net.state_dict(), Path(folder) / "weights.pt")
    distributed.destroy_process_group()
