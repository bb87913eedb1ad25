"""Training batches: what a network sees at a step, drawn from (seed, step) alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from voxpool.data.cache import TrainingCase
from voxpool.data.head_labels import BACKGROUND
from voxpool.data.synthesis import HeadMap, SynthesisConfig, draw_image, draw_structures, synthesise
from voxpool.data.transforms import SupervoxelConfig, augmentation, make_segments
from voxpool.engine import Draw, TrainConfig, use_bf16
from voxpool.errors import UsageError
from voxpool.nets import GuidedVoxResNet, SupervoxelNet
from voxpool.nets.guide import BLOCK, brain_mask, look
from voxpool.ops import compact_segments, parents_of

_FLIPPED = 0.5
_EASY = (1.0, 0.0, 0.0)
_EASY_SHARE = 0.25
_LITRE = 1_000_000  # voxels of 1 mm


def case_batches(cases: Sequence[TrainingCase], config: TrainConfig, net: nn.Module) -> Draw:
    """Augmented crops of preprocessed cases.

    Crops cut supervoxels: the ids of each crop are made 0..K-1 again, and K is the largest of the batch.

    Raises:
        UsageError: If there are no cases.
    """
    if not cases:
        raise UsageError("training needs at least one case, got none")
    augment = augmentation(config.crop, segments=isinstance(net, SupervoxelNet))

    def draw(step: int) -> tuple[dict[str, Tensor], int | None]:
        rng = np.random.default_rng([config.seed, step])
        crops = []
        for _ in range(config.batch_size):
            case = cases[int(rng.integers(len(cases)))]
            augment.set_random_state(seed=int(rng.integers(2**32)))
            crops.append(augment(case.tensors()))
        batch = {
            "image": torch.stack([crop["image"] for crop in crops]),
            "labels": torch.stack([crop["labels"][0] for crop in crops]).to(torch.int64),
        }
        if "segments" not in crops[0]:
            return batch, None
        compacted = [compact_segments(crop["segments"][0]) for crop in crops]
        count = max(number for _, number in compacted)
        batch["segments"] = torch.stack([segments for segments, _ in compacted])
        if len(crops[0]["segments"]) > 1:
            parents = [
                parents_of(fine, crop["segments"][1], count) for (fine, _), crop in zip(compacted, crops, strict=True)
            ]
            batch["parents"] = torch.stack(parents)
        return batch, count

    return draw


def synthetic_batches(
    heads: Sequence[HeadMap], synthesis: SynthesisConfig, config: TrainConfig, *, easy: bool = True
) -> Draw:
    """Synthetic heads: each step sees one head in as many contrasts as it has images.

    Args:
        heads: Label maps.
        synthesis: How different the heads may be.
        config: Images per step, steps and seed.
        easy: Begin with images that look like a T1, and come to the contrasts of `synthesis` after a quarter of the
            steps: a new network that meets any contrast at once learns much slower.

    Raises:
        UsageError: If there are no heads.
    """
    if not heads:
        raise UsageError("training needs at least one label map, got none")

    def draw(step: int) -> tuple[dict[str, Tensor], int | None]:
        share = min(1.0, step / (_EASY_SHARE * config.iterations)) if easy else 1.0
        t1, t2, free = (
            share * full + (1 - share) * easy for full, easy in zip(synthesis.contrasts, _EASY, strict=True)
        )
        now = replace(synthesis, contrasts=(t1, t2, free))
        rng = np.random.default_rng([config.seed, step])
        head = heads[int(rng.integers(len(heads)))]
        structures = draw_structures(head, now, int(rng.integers(2**32)))
        drawn = [draw_image(structures, now, int(rng.integers(2**32))) for _ in range(config.batch_size)]
        image = torch.stack([sample.image for sample in drawn])[:, None]
        return {"image": image, "labels": torch.stack([sample.labels for sample in drawn]).long()}, None

    return draw


def guided_batches(cases: Sequence[TrainingCase], config: TrainConfig, net: nn.Module) -> Draw:
    """Crops of preprocessed cases with what a guided network's context says of them; left and right flipped at times.

    The context sees every case once, now: it is not trained.

    Args:
        cases: Cases of 1 mm voxels in RAS, sizes multiples of the network's `whole_stride`.
        config: Crop, a multiple of 8 voxels per axis, crops per step and seed.
        net: A `GuidedVoxResNet`, or one with a supervoxel head.

    Raises:
        UsageError: If there are no cases, or the crop does not fit the guide's blocks.
    """
    if not cases:
        raise UsageError("training needs at least one case, got none")
    guided = cast(GuidedVoxResNet, net.base if isinstance(net, SupervoxelNet) else net)
    _check_crop(config.crop)
    where = next(guided.parameters()).device
    bf16 = use_bf16(config.amp, where)
    guided.eval()
    guides = [
        look(guided.context, torch.from_numpy(np.array(case.image[0])).to(where), bf16=bf16).cpu() for case in cases
    ]

    smallest = np.min([case.labels.shape for case in cases], axis=0)
    crop = np.minimum(config.crop, smallest)

    def draw(step: int) -> tuple[dict[str, Tensor], int | None]:
        rng = np.random.default_rng([config.seed, step])
        maps, labels, segments, counts = [], [], [], []
        for _ in range(config.batch_size):
            number = int(rng.integers(len(cases)))
            case = cases[number]
            starts = BLOCK * rng.integers((np.array(case.labels.shape) - crop) // BLOCK + 1)
            window = tuple(slice(int(start), int(start + side)) for start, side in zip(starts, crop, strict=True))
            flip = (0,) if rng.random() < _FLIPPED else ()
            seen = guides[number].maps(torch.from_numpy(np.array(case.image[0])), window)
            maps.append(seen.flip([1 + axis for axis in flip]))
            labels.append(torch.from_numpy(np.array(case.labels[window])).long().flip(flip))
            if case.segments is not None:
                ids, count = compact_segments(torch.from_numpy(np.array(case.segments[window])).flip(flip))
                segments.append(ids)
                counts.append(count)
        batch = {"image": torch.stack(maps), "labels": torch.stack(labels)}
        if not segments:
            return batch, None
        return batch | {"segments": torch.stack(segments)}, max(counts)

    return draw


def detail_batches(
    heads: Sequence[HeadMap],
    synthesis: SynthesisConfig,
    config: TrainConfig,
    net: GuidedVoxResNet,
    supervoxels: SupervoxelConfig | None,
    *,
    bf16: bool,
) -> Draw:
    """Crops of synthetic heads around the brain, with what the context network says of the whole head.

    Args:
        heads: Label maps.
        synthesis: How different they may be; `voxel` is 1.
        config: Crop, crops per step (all of one head) and seed.
        net: The network whose detail is trained; its context sees the heads.
        supervoxels: How supervoxels are made, `n_segments` of a litre; None without supervoxel head.
        bf16: Whether the context computes in bfloat16.

    Raises:
        UsageError: If there are no heads, or the crop is no multiple of 8 voxels.
    """
    if not heads:
        raise UsageError("training needs at least one label map, got none")
    _check_crop(config.crop)

    def draw(step: int) -> tuple[dict[str, Tensor], int | None]:
        rng = np.random.default_rng([config.seed, step])
        head = heads[int(rng.integers(len(heads)))]
        sample = synthesise(head, synthesis, int(rng.integers(2**32)))
        guide = look(net.context, sample.image, bf16=bf16)
        middles = torch.nonzero(sample.labels[::BLOCK, ::BLOCK, ::BLOCK] != BACKGROUND).numpy()
        maps, labels, segments, counts = [], [], [], []
        for _ in range(config.batch_size):
            middle = middles[int(rng.integers(len(middles)))]
            window = _window(middle, config.crop, sample.image.shape)
            maps.append(guide.maps(sample.image, window))
            labels.append(sample.labels[window].long())
            if supervoxels is None:
                continue
            mask = brain_mask(maps[-1], net.context_classes)
            number = max(1, round(supervoxels.n_segments * int(mask.sum()) / _LITRE))
            found = make_segments(
                maps[-1][:1].numpy(), mask.numpy(), replace(supervoxels, n_segments=number), spacing=None
            )
            segments.append(torch.from_numpy(found))
            counts.append(int(found.max()) + 1)
        batch = {"image": torch.stack(maps), "labels": torch.stack(labels)}
        if supervoxels is None:
            return batch, None
        return batch | {"segments": torch.stack(segments)}, max(counts)

    return draw


def _check_crop(crop: Sequence[int]) -> None:
    if any(side % BLOCK for side in crop):
        raise UsageError(f"the crop must be a multiple of {BLOCK} voxels per axis, got {crop}")


def _window(middle: np.ndarray, crop: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """A crop around a block, inside the image."""
    starts = [
        min(max(0, int(block) - side // BLOCK // 2), (size - side) // BLOCK) * BLOCK
        for block, side, size in zip(middle, crop, shape, strict=True)
    ]
    return tuple(slice(start, start + side) for start, side in zip(starts, crop, strict=True))
