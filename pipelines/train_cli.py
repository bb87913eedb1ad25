"""The command `voxpool train`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxpool_pipelines.arguments import spacing_of
from voxpool_pipelines.options import (
    Amp,
    AuxiliaryWeight,
    Compactness,
    Convention,
    Crop,
    DataPath,
    Deterministic,
    Device,
    FinetuneLearningRate,
    FinetuneShare,
    ImagePattern,
    LabelNames,
    LabelPattern,
    Layout,
    LearningRate,
    NSegments,
    Optimizer,
    Seed,
    SkipCheck,
    Spacing,
    TargetOracle,
)


def train(
    data: DataPath,
    out: Annotated[Path, typer.Option("--out", help="Run folder; give it again to go on. The model is in it.")],
    layout: Layout = "auto",
    image: ImagePattern = None,
    labels: LabelPattern = None,
    label_names: LabelNames = None,
    net: Annotated[str, typer.Option(help="voxresnet, segresnet or guided_voxresnet.")] = "voxresnet",
    init: Annotated[str, typer.Option(help="Model that guided_voxresnet begins from; bundled: the one here.")] = (
        "bundled"
    ),
    convention: Convention = "ventricles-only",
    reduction: Annotated[int, typer.Option(help="VoxResNet's factor f.")] = 8,
    head: Annotated[str, typer.Option(help="base, v1, v2 or v3.")] = "base",
    segments: Annotated[str, typer.Option(help="Kind of a head's supervoxels: block or slic.")] = "slic",
    iterations: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time, instead.")] = None,
    finetune_share: FinetuneShare = 0.25,
    crop: Crop = 96,
    batch_size: Annotated[int, typer.Option(help="Crops per step and process.")] = 1,
    optimizer: Optimizer = "adam",
    learning_rate: LearningRate = 4e-3,
    finetune_learning_rate: FinetuneLearningRate = 1e-3,
    auxiliary_weight: AuxiliaryWeight = 0.3,
    n_segments: NSegments = None,
    target_oracle: TargetOracle = 0.95,
    compactness: Compactness = "0.1",
    spacing: Spacing = "auto",
    seed: Seed = 0,
    deterministic: Deterministic = False,
    amp: Amp = "auto",
    device: Device = "auto",
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Time between checkpoints.")] = 30.0,
    skip_check: SkipCheck = False,
) -> None:
    """Train one network on all cases, for use; torchrun starts it on several GPUs."""
    from voxpool_pipelines.config import GUIDED, parse_config

    config = parse_config(
        nets=(net,),
        init=init if net == GUIDED else None,
        convention=convention,
        reductions=(reduction,),
        heads=(head,),
        segments=(segments,),
        control=False,
        iterations=iterations,
        minutes=minutes,
        finetune_share=finetune_share,
        crop=crop,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        finetune_learning_rate=finetune_learning_rate,
        auxiliary_weight=auxiliary_weight,
        n_segments=n_segments,
        target_oracle=target_oracle,
        compactness=compactness,
        spacing=spacing_of(spacing),
        seed=seed,
        deterministic=deterministic,
        amp=amp,
    )
    from rich.console import Console

    from voxpool_pipelines.prepare import open_dataset, require_sound

    console = Console(quiet=os.environ.get("RANK", "0") != "0")  # of several processes one speaks
    dataset = open_dataset(data, layout=layout, image=image, labels=labels, label_names=label_names, console=console)
    if not skip_check:
        require_sound(dataset, None, console)
    # torch and MONAI are loaded only now: what is wrong with the data shows at once
    from voxpool_pipelines.train import train_model

    model = train_model(dataset, config, out=out, device=device, console=console, checkpoint_seconds=checkpoint_seconds)
    console.print(f"model: {model}", highlight=False, markup=False, soft_wrap=True)
