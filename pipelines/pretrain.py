"""Train the model for any MRI of a head: on images made from label maps, the context network first, then the detail."""

from functools import partial
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch import nn

from voxpool.batches import detail_batches, synthetic_batches
from voxpool.data.head_labels import CLASSES
from voxpool.data.synthesis import HeadMap, SynthesisConfig, read_head_map
from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.engine import Draw, TrainConfig, TrainResult, train, use_bf16
from voxpool.errors import InputError, ModelError
from voxpool.inference import select_device
from voxpool.model_package import ModelInfo, load_package, save_package
from voxpool.nets import GuidedVoxResNet, SupervoxelNet, create_net
from voxpool.nets.guide import COARSE, FIELD
from voxpool_pipelines.console import show_training, task

NET, HEAD = "guided_voxresnet", "v3"
IMAGES = 2  # per step of the context network, of one head; without bfloat16 torch computes one alone much slower
GRID_MM = 2
DETAIL_CROP, DETAIL_CROPS = 64, 4
CONTEXT_RATE, DETAIL_RATE = 3e-3, 4e-3
SUPERVOXELS_PER_LITRE = 20_000
SUPERVOXELS = 28_000  # of a brain with its CSF, 1.4 litres
# steps of a training that goes on from other weights begin with a lower rate, so as not to undo them
INIT_RATE_SHARE = 0.5


def pretrain(
    maps: Path,
    out: Path,
    *,
    init: str | None,
    context_iterations: int,
    detail_iterations: int,
    seed: int,
    device: str,
    console: Console,
) -> Path:
    """Train context and detail networks, or go on where an interrupted training stopped.

    Args:
        maps: Folder of whole-head label maps with FreeSurfer's ids, 1 mm.
        out: Gets `context/` and `detail/` (checkpoints and logs) and `model/`, the package.
        init: Model package to begin from, "bundled", or None for new weights.
        context_iterations: Steps of the context network; 0 keeps that of `init`.
        detail_iterations: Steps of the detail network.
        seed: Seed of weights and images.
        device: "auto", "cpu", "cuda", ...
        console: Where progress is shown.

    Returns:
        The model package.

    Raises:
        InputError: If the folder holds no label map.
        ModelError: If `init` is of another network.
    """
    files = sorted(maps.glob("*.nii.gz")) + sorted(maps.glob("*.nii"))
    if not files:
        raise InputError(f"{maps} holds no label map (*.nii.gz); name the folder of whole-head label maps")
    where = select_device(device)
    net, before = _start(init, seed)
    guided = cast(GuidedVoxResNet, net.base)
    with task(console, "reading label maps") as update:
        heads: list[HeadMap] = []
        for number, file in enumerate(files):
            heads.append(read_head_map(file).to(where))
            update((number + 1) / len(files), file.name)
    rate = 1.0 if init is None else INIT_RATE_SHARE
    if context_iterations:
        config = TrainConfig(
            context_iterations,
            crop=(FIELD // COARSE,) * 3,
            batch_size=IMAGES,
            learning_rate=rate * CONTEXT_RATE,
            seed=seed,
        )
        synthesis = SynthesisConfig(size=(FIELD,) * 3, voxel=COARSE, grid=GRID_MM)
        draw = synthetic_batches(heads, synthesis, config, easy=init is None)
        _train(guided.context, draw, config, out / "context", where, console, "context network")
    supervoxels = SupervoxelConfig("slic", SUPERVOXELS_PER_LITRE)
    config = TrainConfig(
        detail_iterations,
        crop=(DETAIL_CROP,) * 3,
        batch_size=DETAIL_CROPS,
        learning_rate=rate * DETAIL_RATE,
        seed=seed + 1,
    )
    bf16 = use_bf16(config.amp, where)
    crops = detail_batches(heads, SynthesisConfig(voxel=1), config, guided, supervoxels, bf16=bf16)
    _train(net, crops, config, out / "detail", where, console, "detail network")
    info = _info(
        {
            "data": [file.name for file in files],
            "init": init,
            "before": before,
            "context_iterations": context_iterations,
            "detail_iterations": detail_iterations,
            "seed": seed,
        }
    )
    return save_package(net, info, out / "model")


def _start(init: str | None, seed: int) -> tuple[SupervoxelNet, dict[str, object] | None]:
    """The network to begin with, and how it was trained before."""
    torch.manual_seed(seed)
    if init is None:
        return cast(SupervoxelNet, create_net(NET, 1, len(CLASSES), head=HEAD)), None
    net, info = load_package(init)
    if (info.net, info.head) != (NET, HEAD):
        raise ModelError(f"{init} is a {info.net} with head {info.head}; begin from a model that `pretrain` made")
    return cast(SupervoxelNet, net), dict(info.training)


def _train(
    net: nn.Module,
    draw: Draw,
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    console: Console,
    name: str,
) -> TrainResult:
    with task(console, name) as update:
        return train(net, draw, config, folder=folder, device=device, progress=partial(show_training, update))


def _info(training: dict[str, object]) -> ModelInfo:
    return ModelInfo(
        net=NET,
        net_options={},
        head=HEAD,
        channels=("image",),
        label_names=dict(enumerate(CLASSES)),
        convention="whole-head label maps with FreeSurfer's ids, merged into nine classes",
        preprocess=PreprocessConfig(spacing=(1.0, 1.0, 1.0), keep_outside=True),
        supervoxels=SupervoxelConfig("slic", SUPERVOXELS),
        training=dict(training),
    )
