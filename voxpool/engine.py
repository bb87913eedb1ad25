"""Training of a network on preprocessed cases: plain functions over a configuration."""

import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from voxpool.checkpoint import load_checkpoint, save_checkpoint
from voxpool.errors import Cancelled, ModelError, UsageError
from voxpool.losses import dice_cross_entropy, foreground_dice, segment_dice_cross_entropy, segment_foreground_dice
from voxpool.nets import SupervoxelNet
from voxpool.nets.heads import BaseNet
from voxpool.ops import Supervoxels, segment_histogram
from voxpool.ranks import current_ranks
from voxpool.training_log import LOG_EVERY, RunningMean, TrainingLog

Amp = Literal["auto", "bf16", "off"]
Draw = Callable[[int], tuple[dict[str, Tensor], int | None]]
"""Gives for a step "image" (N, C, *S), "labels" (N, *S) int64 and, for a supervoxel head, "segments" (N, *S) and, of
two levels, "parents" (N, K); and the number K of supervoxels or None."""


class Judge(Protocol):
    """Runs a network on a batch and judges its scores, such as `step_loss`."""

    def __call__(
        self,
        net: nn.Module,
        batch: dict[str, Tensor],
        num_segments: int | None,
        *,
        auxiliary: float,
        bf16: bool,
        score: bool,
    ) -> tuple[Tensor, float | None]:
        """The loss, a scalar, and where `score` is set the batch's Dice."""


# oneDNN's bfloat16 weight gradients of a 3x3x3 convolution over 2x2x2 voxels are NaN (torch 2.13)
BF16_COARSEST = 4


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
        iterations: Number of optimiser steps.
        crop: Size of a training crop in voxels, a multiple of the network's stride.
        batch_size: Crops per step.
        optimizer: "adam", or "sgd" with momentum 0.9.
        learning_rate: Learning rate at the start.
        poly_power: Exponent p of the schedule: rate * (1 - step / iterations)^p.
        weight_decay: L2 penalty.
        auxiliary_weight: Weight at the start of the loss of each scale alone (deep supervision), falling linearly to 0.
        amp: "bf16" for mixed precision, "off" for float32, "auto" for bf16 where the processor computes in it.
        seed: Seed of initial weights, crops and augmentation.
    """

    iterations: int
    crop: tuple[int, ...] = (96, 96, 96)
    batch_size: int = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-2
    poly_power: float = 0.9
    weight_decay: float = 0.0
    auxiliary_weight: float = 0.0
    amp: Amp = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"crop": list(self.crop)}


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        iteration: Steps done.
        iterations: Steps in all.
        loss: Running mean of the loss.
        dice: Running mean of the crops' foreground Dice.
        seconds_left: Estimated time to the end, from this session's steps.
    """

    iteration: int
    iterations: int
    loss: float
    dice: float
    seconds_left: float


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        iterations: Steps done.
        seconds: Time in training steps, over all sessions of an interrupted training.
        loss: Running mean of the loss at the end.
    """

    iterations: int
    seconds: float
    loss: float


def use_bf16(amp: Amp, device: torch.device) -> bool:
    """Whether to compute in bfloat16: on a GPU, and on a CPU that has instructions for it."""
    if amp == "auto":
        return device.type == "cuda" or (torch.backends.cpu.get_cpu_capability() in _BF16_CPUS and _cpu_has_bf16())
    return amp == "bf16"


_BF16_CPUS = ("AVX512", "AMX")


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


def memory_format(net: nn.Module) -> torch.memory_format:
    """Channels-last of the network's dimensionality: the fast layout of its convolutions."""
    dims = max(p.ndim for p in net.parameters())
    return torch.channels_last_3d if dims == 5 else torch.channels_last


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, in the fast layout; changed in place."""
    # torch's annotations lack the layout
    return net.to(device=device, memory_format=memory_format(net))  # type: ignore[call-overload]


def train(
    net: nn.Module,
    draw: Draw,
    config: TrainConfig,
    *,
    folder: Path,
    judge: Judge | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    checkpoint_seconds: float = 30.0,
) -> TrainResult:
    """Train a network, or go on where an interrupted training of the same configuration stopped.

    What `draw` gives for a step must depend on nothing but the step; then a resumed training gives the same weights
    as an uninterrupted one. No validation data are used: the weights of the last step count.

    Several processes, joined by `torch.distributed` (see `voxpool.ranks`), train together: each takes a batch of its
    own, and all take the mean of their gradients, so a step sees as many batches as there are processes. The folder
    must be one for all; the first process writes into it and calls `progress`.

    Args:
        net: Network, with its initial weights; changed in place.
        draw: Gives the batch of a step, see `voxpool.batches`; with "segments" for a `SupervoxelNet`.
        config: How to train.
        judge: What is made of a batch; `step_loss` by default.
        folder: Gets `checkpoint.pt` (until the caller removes it), `log.csv` and TensorBoard events.
        device: Where to compute.
        progress: Called every few steps.
        cancelled: Asked before every step; when true, the state is saved and `Cancelled` is raised.
        checkpoint_seconds: Time between checkpoints.

    Returns:
        Steps, seconds and loss.

    Raises:
        UsageError: If the crop does not fit the network.
        ModelError: If the checkpoint found is of another configuration or damaged.
        Cancelled: If `cancelled` said so.

    Determinism: bit-equal from run to run on one machine, number of threads and of processes; on a GPU only under
    `torch.use_deterministic_algorithms(True)`.
    """
    device = torch.device(device)
    bf16 = use_bf16(config.amp, device)
    _check_crop(config, cast(BaseNet, net).stride, bf16)
    ranks = current_ranks()
    to_device(net, device).train()
    optimizer = _optimizer(net, config)
    plan = config.as_dict() | ({"processes": ranks.world} if ranks.world > 1 else {})
    state = load_checkpoint(folder / "checkpoint.pt", net, optimizer, plan)
    done, seconds = state["iteration"], state["seconds"]
    ranks.check_alike(done)
    judged = ranks.together(_Judged(net, judge or step_loss))
    log = TrainingLog(folder, done) if ranks.leads else None
    running = RunningMean(state["loss"], state["dice"])
    session_start = saved = time.perf_counter()
    first = done

    def save() -> None:
        if ranks.leads:
            elapsed = seconds + time.perf_counter() - session_start
            save_checkpoint(folder / "checkpoint.pt", net, optimizer, plan, done, elapsed, running)

    with closing(log) if log else nullcontext():
        while done < config.iterations:
            if cancelled and cancelled():
                save()
                raise Cancelled(
                    f"training stopped after {done} of {config.iterations} iterations; run it again to go on"
                )
            rate = _set_rate(optimizer, config, done)
            # dropout too depends on nothing but the step
            number = done * ranks.world + ranks.rank
            torch.manual_seed((config.seed << 32) + number)
            batch, num_segments = draw(number)
            batch = _placed(batch, device, memory_format(net))
            auxiliary = config.auxiliary_weight * (1 - done / config.iterations)
            score = done % LOG_EVERY == 0
            loss, dice = _step(judged, optimizer, batch, num_segments, auxiliary=auxiliary, bf16=bf16, score=score)
            done += 1
            running.add(loss, dice)
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss became {loss} at iteration {done}; lower the learning rate (now {config.learning_rate})"
                )
            now = time.perf_counter()
            if log and (done % LOG_EVERY == 0 or done == config.iterations):
                log.add(done, running, rate)
                if progress:
                    left = (now - session_start) / (done - first) * (config.iterations - done)
                    progress(Progress(done, config.iterations, running.loss, running.dice, left))
            if now - saved > checkpoint_seconds:
                save()
                saved = now
    save()
    return TrainResult(done, seconds + time.perf_counter() - session_start, running.loss)


def _check_crop(config: TrainConfig, stride: int, bf16: bool) -> None:
    if any(size % stride for size in config.crop):
        raise UsageError(f"the crop must be a multiple of {stride} voxels per axis, got {config.crop}")
    if bf16 and min(config.crop) < BF16_COARSEST * stride:
        raise UsageError(
            f"a crop of {min(config.crop)} voxels is {min(config.crop) // stride} at the network's coarsest scale,"
            f" where bfloat16 gradients can become NaN; take at least {BF16_COARSEST * stride}, or amp off"
        )


def _set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, done: int) -> float:
    rate = config.learning_rate * (1 - done / config.iterations) ** config.poly_power
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _placed(batch: dict[str, Tensor], device: torch.device, layout: torch.memory_format) -> dict[str, Tensor]:
    placed = {name: tensor.to(device) for name, tensor in batch.items()}
    return placed | {"image": placed["image"].to(memory_format=layout)}


def _step(
    judged: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    num_segments: int | None,
    **options: Any,
) -> tuple[float, float | None]:
    optimizer.zero_grad(set_to_none=True)
    loss, dice = judged(batch, num_segments, **options)
    loss.backward()
    optimizer.step()
    return float(loss.detach()), dice


class _Judged(nn.Module):
    """A network and what is made of a batch as one module, as `DistributedDataParallel` needs it."""

    def __init__(self, net: nn.Module, judge: Judge) -> None:
        super().__init__()
        self.net, self.judge = net, judge

    def forward(
        self, batch: dict[str, Tensor], num_segments: int | None, **options: Any
    ) -> tuple[Tensor, float | None]:
        return self.judge(self.net, batch, num_segments, **options)


def step_loss(
    net: nn.Module,
    batch: dict[str, Tensor],
    num_segments: int | None,
    *,
    auxiliary: float = 0.0,
    bf16: bool = False,
    score: bool = False,
) -> tuple[Tensor, float | None]:
    """Run the network on a batch and judge its scores.

    V1 and V2 give all voxels of a supervoxel the same scores, so they are judged supervoxel by supervoxel: that is
    the loss of the voxels without painting them.

    Args:
        net: Network.
        batch: What a `Draw` gives, on the network's device.
        num_segments: Number of supervoxels, for a `SupervoxelNet`.
        auxiliary: Weight of the loss of each scale alone, for networks that have one per scale.
        bf16: Whether the network computes in bfloat16.
        score: Whether the Dice is wanted.

    Returns:
        The loss, a scalar; the crops' foreground Dice or None.
    """
    image, target = batch["image"], batch["labels"]
    scales: tuple[Tensor, ...] = ()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        if isinstance(net, SupervoxelNet):
            supervoxels = Supervoxels.of(batch["segments"], num_segments or 0)
            hard = net.version != "v3"
            scored = net.segment_scores if hard else net
            scores = scored(image, supervoxels, parents=batch.get("parents"))
        else:
            hard = False
            per_scale = getattr(getattr(net, "head", None), "per_scale", None)
            if auxiliary and per_scale is not None:
                scales = per_scale(cast(BaseNet, net).features(image))
            scores = sum(scales[1:], scales[0]) if scales else net(image)
    if hard:
        counts = segment_histogram(target, supervoxels.segments, supervoxels.num_segments, scores.shape[1])
        dice = segment_foreground_dice(scores.detach(), counts) if score else None
        return segment_dice_cross_entropy(scores, counts), dice
    loss = dice_cross_entropy(scores, target)
    for scale in scales:
        loss = loss + auxiliary * nn.functional.cross_entropy(scale.float(), target)
    return loss, foreground_dice(scores.detach(), target) if score else None


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), config.learning_rate, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.Adam(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
