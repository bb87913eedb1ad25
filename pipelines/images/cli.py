"""The commands `voxpool train2d` and `voxpool evaluate2d`."""

from pathlib import Path
from typing import Annotated

import typer

from voxpool.errors import UsageError
from voxpool_pipelines.arguments import words
from voxpool_pipelines.options import Device, Seed

ImageData = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder in Cityscapes', VOC's or CamVid's layout, or with images.")
]
ImageLayout = Annotated[str, typer.Option(help="auto, cityscapes, voc, camvid or folder.")]
ClassNames = Annotated[str | None, typer.Option(help="Names of the classes 0, 1, …, separated by commas.")]


def add_image_commands(app: typer.Typer) -> None:
    """Give the command line what networks for images need."""
    app.command("train2d")(train2d)
    app.command("evaluate2d")(evaluate2d)


def train2d(
    data: ImageData,
    out: Annotated[Path, typer.Option("--out", help="Run folder; give it again to go on.")],
    layout: ImageLayout = "auto",
    class_names: ClassNames = None,
    nets: Annotated[str, typer.Option(help="Networks, see `voxpool nets`.")] = "enet",
    heads: Annotated[str, typer.Option(help="base superpixels.")] = "base superpixels",
    size: Annotated[str | None, typer.Option(help="Height and width that images are brought to.")] = None,
    crop: Annotated[str | None, typer.Option(help="Height and width of a crop; else nearly the whole image.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="How often every image is seen, instead.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 8,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-2,
    poly_power: Annotated[float, typer.Option(help="Exponent of its fall to 0.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 1e-4,
    class_weights: Annotated[str, typer.Option(help="none, or log: rare classes count more.")] = "none",
    n_superpixels: Annotated[int, typer.Option(help="Superpixels per image.")] = 1000,
    compactness: Annotated[float, typer.Option(help="Compactness of SLIC.")] = 0.1,
    scale: Annotated[str, typer.Option(help="Smallest and largest size of a training image.")] = "0.5 2",
    encoder: Annotated[str | None, typer.Option(help="File with weights of the encoder, such as ImageNet's.")] = None,
    seed: Seed = 0,
    amp: Annotated[str, typer.Option(help="bfloat16: auto, bf16 or off.")] = "auto",
    device: Device = "auto",
) -> None:
    """Train networks for images, with and without superpixels, score them and write the report."""
    from voxpool_pipelines.images.config import parse_images_config

    config = parse_images_config(
        nets=words(nets, str, "--nets"),
        heads=words(heads, str, "--heads"),
        size=_pair(size, "--size"),
        crop=_pair(crop, "--crop"),
        iterations=iterations,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        poly_power=poly_power,
        weight_decay=weight_decay,
        class_weights=class_weights,
        n_superpixels=n_superpixels,
        compactness=compactness,
        scale=words(scale, float, "--scale"),
        encoder=encoder,
        seed=seed,
        amp=amp,
    )
    from rich.console import Console

    from voxpool.data2d import find_images
    from voxpool_pipelines.images.report import write_images_report
    from voxpool_pipelines.images.train import train_images

    console = Console()
    dataset = find_images(data, layout=layout, class_names=_names(class_names))
    train_images(dataset, config, out=out, device=device, console=console)
    console.print(f"report: {write_images_report(out)}", highlight=False, markup=False, soft_wrap=True)


def evaluate2d(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model package of a run of train2d.")],
    data: ImageData,
    out: Annotated[Path, typer.Option("--out", help="Folder for scores.json and the label images.")],
    layout: ImageLayout = "auto",
    class_names: ClassNames = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    crf: Annotated[bool, typer.Option("--crf", help="Smooth the labels with a dense CRF.")] = False,
    amp: Annotated[str, typer.Option(help="bfloat16: auto, bf16 or off.")] = "auto",
    device: Device = "auto",
) -> None:
    """Label images with a model and score the labels: IoU per class, Dice, accuracies, Cityscapes' iIoU."""
    from rich.console import Console

    from voxpool.data2d import find_images
    from voxpool_pipelines.images.evaluate import evaluate_model

    dataset = find_images(data, layout=layout, class_names=_names(class_names))
    evaluate_model(model, dataset, split=split, out=out, device=device, amp=amp, crf=crf, console=Console())


def _pair(text: str | None, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    values = words(text, int, option)
    if len(values) != 2:
        raise UsageError(f"{option} takes height and width, such as '360 480', got {text!r}")
    return values


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))
