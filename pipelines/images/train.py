"""Training of networks for images, with and without superpixels, on one schedule, and their scores.

State lies on disk alone: a variant is done when its `result.json` is there, a training goes on from its checkpoint.
"""

import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from voxpool.batches2d import ImageLoss, class_weights, image_batches, read_case
from voxpool.data2d import ImageDataset
from voxpool.data2d.transforms import Augmentation
from voxpool.engine import TrainConfig, train
from voxpool.errors import InputError, UsageError
from voxpool.inference import select_device
from voxpool.io import write_json
from voxpool.layers.counts import count_folded
from voxpool.model_package import PlanarInfo, save_package
from voxpool.nets import count_parameters
from voxpool.nets2d import load_encoder
from voxpool_pipelines.console import show_training, task
from voxpool_pipelines.images.config import SUPERPIXELS, ImagesConfig, ImageVariant, net_options, variants
from voxpool_pipelines.images.evaluate import evaluate_cases
from voxpool_pipelines.run_folder import locked, start_run, versions

# sides of a crop by default: the largest multiple of this below the image's
_CROP_STEP = 32


@dataclass(frozen=True)
class _Run:
    """What every step of a run needs to know."""

    folder: Path
    dataset: ImageDataset
    config: ImagesConfig
    device: torch.device
    console: Console
    cancelled: Callable[[], bool] | None


def train_images(
    dataset: ImageDataset,
    config: ImagesConfig,
    *,
    out: Path,
    device: str = "auto",
    console: Console | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Train the networks of a configuration and score them on the validation images.

    With and without superpixels a network begins from the same weights and sees the same crops.

    Args:
        dataset: Images with labels, for training and validation.
        config: What to train, and how.
        out: Run folder; an interrupted run in it is continued.
        device: "auto", "cpu", "cuda", ...
        console: Where progress is shown.
        cancelled: Asked before every training step.

    Returns:
        The run folder, with `result.json` of every variant.

    Raises:
        InputError: If images for training or validation are missing, or an image cannot be read.
        UsageError: If the folder holds another run, or an option does not fit.
        Cancelled: If `cancelled` said so; the state is saved.
    """
    console = console or Console()
    chosen = select_device(device)
    for split in ("train", "val"):
        if not dataset.splits.get(split):
            raise InputError(f"{dataset.name} has no images for {split}; add some, or choose another folder")
    with locked(out):
        records = [
            {"id": case.id, "split": split, "image": str(case.image), "labels": str(case.labels)}
            for split, cases in dataset.splits.items()
            for case in cases
        ]
        start_run(out, _describe(dataset, config, str(chosen), "running"), records)
        weights = _weights(dataset, config, console)
        run = _Run(out, dataset, config, chosen, console, cancelled)
        for variant in variants(config):
            if not (out / "variants" / variant.id / "result.json").exists():
                _run_variant(run, variant, weights)
        write_json(out / "run.json", _describe(dataset, config, str(chosen), "done"))
    return out


def _describe(dataset: ImageDataset, config: ImagesConfig, device: str, status: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "images",
        "status": status,
        "data": {
            "name": dataset.name,
            "layout": dataset.layout,
            "classes": dataset.classes.names,
            "colours": dataset.classes.colours,
            "file_ids": dataset.classes.file_ids,
            "void_ids": dataset.classes.void_ids,
            "images": {name: len(cases) for name, cases in dataset.splits.items()},
        },
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "device": device,
    }


def _weights(dataset: ImageDataset, config: ImagesConfig, console: Console) -> Tensor | None:
    if config.class_weights == "none":
        return None
    with task(console, "counting the pixels of each class"):
        return class_weights(dataset.splits["train"], dataset.classes)


def _run_variant(run: _Run, variant: ImageVariant, weights: Tensor | None) -> None:
    dataset, config, console = run.dataset, run.config, run.console
    place = run.folder / "variants" / variant.id
    cases = dataset.splits["train"]
    info, training = _plan(dataset, config, variant)
    net = _new_net(info, config)
    with task(console, f"{variant.id}: training") as update:
        draw = image_batches(
            cases,
            dataset.classes,
            training,
            size=config.size,
            pixels_each=info.pixels_each,
            compactness=config.compactness,
            augmentation=Augmentation(scale=config.scale),
        )
        result = train(
            net,
            draw,
            training,
            judge=ImageLoss(weights),
            folder=place / "training",
            device=run.device,
            progress=partial(show_training, update),
            cancelled=run.cancelled,
        )
    shutil.copyfile(place / "training" / "log.csv", place / "log.csv")
    save_package(net, info, place / "model")
    scores = evaluate_cases(
        net.eval(),
        info,
        dataset,
        dataset.splits["val"],
        amp=config.amp,
        console=console,
        title=variant.id,
        predictions=place / "labels",
    )
    write_json(
        place / "result.json",
        {
            "variant": {"id": variant.id, "net": variant.net, "head": variant.head},
            "parameters": count_parameters(net),
            "parameters_folded": count_folded(net),
            "crop": list(training.crop),
            "iterations": result.iterations,
            "train_seconds": result.seconds,
            "loss": result.loss,
            **scores,
        },
    )
    shutil.rmtree(place / "training", ignore_errors=True)
    console.print(f"{variant.id}: mean IoU {100 * scores['mean_iou']:.1f}", highlight=False, soft_wrap=True)


def _plan(dataset: ImageDataset, config: ImagesConfig, variant: ImageVariant) -> tuple[PlanarInfo, TrainConfig]:
    """What the model will be, and how it is trained."""
    cases = dataset.splits["train"]
    first, _ = read_case(cases[0], dataset.classes, config.size)
    height, width = first.shape[:2]
    crop = config.crop or (_crop_side(height), _crop_side(width))
    steps = config.iterations or max(1, math.ceil((config.epochs or 0) * len(cases) / config.batch_size))
    info = PlanarInfo(
        net=variant.net,
        net_options=net_options(variant.net, dataset.layout),
        head=variant.head,
        label_names=dataset.classes.names,
        colours=dataset.classes.colours,
        size=config.size,
        pixels_each=height * width / config.n_superpixels if variant.head == SUPERPIXELS else None,
        compactness=config.compactness,
        training={"data": dataset.name, "iterations": steps, "seed": config.seed},
    )
    training = TrainConfig(
        iterations=steps,
        crop=crop,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        poly_power=config.poly_power,
        weight_decay=config.weight_decay,
        amp=config.amp,
        seed=config.seed,
    )
    return info, training


def _crop_side(side: int) -> int:
    return max(_CROP_STEP, side // _CROP_STEP * _CROP_STEP)


def _new_net(info: PlanarInfo, config: ImagesConfig) -> nn.Module:
    """New weights, the same for a network with superpixels and without: the branch begins at zero."""
    torch.manual_seed(config.seed)
    base = replace(info, head="base").create()
    if config.encoder is not None:
        encoder = getattr(base, "encoder", None)
        if encoder is None:
            raise UsageError(f"{info.net} has no encoder that takes weights of a file; leave --encoder out")
        load_encoder(encoder, _read_weights(Path(config.encoder)))
    net = base if info.head == "base" else info.create()
    if info.head != "base":
        # the branch wraps the network as `base`
        net.get_submodule("base").load_state_dict(base.state_dict())
    return net


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # what torch and safetensors raise of files that hold code, or are damaged
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path.name} holds no weights that can be read safely ({reason}); take another file"
        ) from error
    found = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
