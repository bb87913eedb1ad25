"""What a network for images sees at a training step, drawn from (seed, step) alone, and how it is judged."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxpool.data2d.classes import IGNORED, ImageClasses
from voxpool.data2d.layouts import ImageCase
from voxpool.data2d.transforms import Augmentation, augment, superpixels, to_tensor
from voxpool.engine import Draw, TrainConfig
from voxpool.errors import InputError, UsageError
from voxpool.io.image import read_image
from voxpool.nets2d import SuperpixelBranch

AUXILIARY_WEIGHT = 0.4
"""Of an auxiliary head's loss (PSPNet)."""

_CACHE_BYTES = 1 << 30


def image_batches(
    cases: Sequence[ImageCase],
    classes: ImageClasses,
    config: TrainConfig,
    *,
    size: tuple[int, int] | None = None,
    pixels_each: float | None = None,
    compactness: float = 0.1,
    augmentation: Augmentation | None = None,
) -> Draw:
    """Augmented crops of images; superpixels are made of the crop itself, as of an image later.

    Args:
        cases: Images with labels.
        classes: What the labels mean.
        config: Crop, images per step and seed.
        size: (H, W) that images are brought to first; None for their own.
        pixels_each: Pixels of a superpixel; None for a network without.
        compactness: Of the superpixels.
        augmentation: What crops may differ in.

    Raises:
        UsageError: If there are no cases.
    """
    if not cases:
        raise UsageError("training needs at least one image, got none")
    allowed = augmentation or Augmentation()
    crop = (config.crop[0], config.crop[1])

    first, _ = read_case(cases[0], classes, size)
    kept = max(1, min(len(cases), _CACHE_BYTES // (4 * first[..., 0].size)))
    read = lru_cache(kept)(lambda index: read_case(cases[index], classes, size))

    def draw(step: int) -> tuple[dict[str, Tensor], int | None]:
        rng = np.random.default_rng([config.seed, step])
        images, labels, segments = [], [], []
        for _ in range(config.batch_size):
            colours, truth = read(int(rng.integers(len(cases))))
            image, ids = augment(to_tensor(colours), torch.from_numpy(truth), crop, rng, allowed)
            images.append(image)
            labels.append(ids.long())
            if pixels_each is not None:
                segments.append(superpixels(image, pixels_each, compactness))
        batch = {"image": torch.stack(images), "labels": torch.stack(labels)}
        if not segments:
            return batch, None
        return batch | {"segments": torch.stack(segments)}, 1 + max(int(each.max()) for each in segments)

    return draw


def read_case(
    case: ImageCase, classes: ImageClasses, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An image and its classes.

    Args:
        case: Where they are.
        classes: What the labels mean.
        size: (H, W) to bring both to; None for their own.

    Returns:
        Colours (H, W, 3), uint8, and classes (H, W), uint8, `IGNORED` for void.

    Raises:
        InputError: If a file cannot be read, or the two differ in size.
    """
    colours = read_image(case.image)
    labels = classes.from_file(case.read_ids(), case.labels.name)
    if colours.shape[:2] != labels.shape:
        raise InputError(
            f"{case.image.name} has {colours.shape[0]} x {colours.shape[1]} pixels, its labels {labels.shape[0]} x"
            f" {labels.shape[1]}; they must be the same"
        )
    if size is None or labels.shape == size:
        return colours, labels
    nearest = functional.interpolate(torch.from_numpy(labels)[None, None], size=size, mode="nearest-exact")
    return read_image(case.image, size), nearest[0, 0].numpy()


def class_weights(cases: Sequence[ImageCase], classes: ImageClasses) -> Tensor:
    """Weights that let rare classes count: 1 / ln(1.02 + share of the pixels) (Paszke et al. 2016, Section 5.2).

    Args:
        cases: The training images.
        classes: What the labels mean.

    Returns:
        (num_classes,), float32.
    """
    counts = np.zeros(256, np.int64)
    for case in cases:
        counts += np.bincount(classes.from_file(case.read_ids(), case.labels.name).reshape(-1), minlength=256)
    known = counts[: len(classes.names)]
    return torch.from_numpy(1 / np.log(1.02 + known / max(1, known.sum()))).float()


class ImageLoss:
    """How scores of images are judged: cross-entropy, that of auxiliary heads added; the Dice is for the progress.

    Args:
        weights: Weight of each class, or None for 1 each.
    """

    def __init__(self, weights: Tensor | None = None) -> None:
        self.weights = weights

    def __call__(
        self,
        net: nn.Module,
        batch: dict[str, Tensor],
        num_segments: int | None,
        *,
        auxiliary: float = 0.0,
        bf16: bool = False,
        score: bool = False,
    ) -> tuple[Tensor, float | None]:
        """The loss and, where it is wanted, the mean Dice of the classes in the batch; see `voxpool.engine.Judge`."""
        image, target = batch["image"], batch["labels"]
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
            inputs: tuple[Any, ...] = (image,)
            if isinstance(net, SuperpixelBranch):
                inputs = (image, batch["segments"], num_segments)
            first, *others = net.training_scores(*inputs)  # type: ignore[operator]  # torch knows no methods of modules
        weights = None if self.weights is None else self.weights.to(image.device)

        def judged(scores: Tensor) -> Tensor:
            return functional.cross_entropy(scores.float(), target, weights, ignore_index=IGNORED)

        loss = judged(first)
        for scores in others:
            loss = loss + AUXILIARY_WEIGHT * judged(scores)
        return loss, mean_dice(first.detach(), target) if score else None


def mean_dice(scores: Tensor, target: Tensor) -> float:
    """Mean Dice of the classes that a batch has, without ignored pixels."""
    found, true = scores.argmax(1)[target != IGNORED], target[target != IGNORED]
    count = scores.shape[1]
    matrix = torch.bincount(true * count + found, minlength=count**2).view(count, count).double()
    there = matrix.sum(1) > 0
    dice = 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))
    return float(dice[there].mean()) if there.any() else float("nan")
