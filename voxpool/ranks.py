"""Several processes that train one network, as `torchrun` starts them: one per GPU, or several on CPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from voxpool.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """What is within is done by the first process, then by the others, which find the files that it wrote."""
        if not self.leads:
            distributed.barrier()
        yield
        if self.leads and self.world > 1:
            distributed.barrier()

    def together(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes; the module itself where there is one alone."""
        if self.world == 1:
            return module
        # parameters of a scale that has no loss of its own get no gradient in some steps
        return DistributedDataParallel(module, find_unused_parameters=True)

    def check_alike(self, done: int) -> None:
        """Find out whether all processes stand at one step.

        Raises:
            UsageError: If they do not: they saw different folders.
        """
        if self.world == 1:
            return
        found: list[int] = [0] * self.world
        distributed.all_gather_object(found, done)
        if len(set(found)) > 1:
            raise UsageError(
                f"the processes found checkpoints of different steps, {sorted(set(found))}; give all of them one folder"
            )


def current_ranks() -> Ranks:
    """This process among those that `torch.distributed` has joined; alone where it has joined none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Ranks()
    return Ranks(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started; without it, this one is alone.

    Args:
        device: "auto", "cpu", "cuda", ...; "auto" and "cuda" become a GPU of its own for each process of a machine.

    Yields:
        The device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if gpu and device in ("auto", "cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if gpu:
        torch.cuda.set_device(device)
    store, rank, world = next(distributed.rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
        # torchrun's store still holds where the processes of an earlier attempt listened (pytorch issue 135712); on
        # several machines it counts attempts machine by machine, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(f"attempt{attempt}", store)
    distributed.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=world)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
