"""Where the tissues of a whole head are, and how bright each is in this image: what a detail network builds on.

A context network sees the whole head in coarse voxels. Its probabilities say where every class is, give or take a
voxel; weighed by them, the image itself says how bright every class is, here and there, whatever the contrast and the
shading. From both follows a first answer at full resolution: the probability of each class where a voxel is, times
that of its brightness; what is found so tells the brightness better, and so on (expectation-maximisation, as in the
unified segmentation of Ashburner & Friston 2005, with a network as the atlas).
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

COARSE = 4
"""Voxels of the image along each side of one of the context network's."""

BLOCK = 8
"""What windows must be multiples of; and voxels along a side of the cells in which brightness is measured."""

FIELD = 192
"""Voxels of the image along each side of what the context network sees at once, in training and at work."""

_LOOKS = 4  # at most, to find the field around the brain
_FINE = 2  # voxels of the image along each side of those that brightness is measured on
_ROUNDS = 3  # of measuring the brightness of classes and finding the classes by it
_SPREAD = 2.5  # cells: how far the brightness of a place counts for its surroundings
_TRUST = 0.02  # of a cell: how little of a class is enough to go by its own brightness here
_FLOOR = 0.01  # the context network may be wrong by this much anywhere
_LEAST_DEVIATION = 0.05
_SHARED = 0.5  # of a tissue's variance is that of all tissues at the place; the background's is its own
_MAYBE = 0.8
_MARGIN = 1  # coarse voxels


@dataclass(frozen=True)
class Guide:
    """What is known of a head at a coarse resolution.

    Attributes:
        probabilities: Of every class, (C, d, h, w), one for each 2 x 2 x 2 voxels of the image.
        means: Brightness of every class, (C, d / 4, h / 4, w / 4).
        deviations: Its standard deviation, likewise.
    """

    probabilities: Tensor
    means: Tensor
    deviations: Tensor

    def cpu(self) -> "Guide":
        """The guide in the computer's own memory."""
        return Guide(self.probabilities.cpu(), self.means.cpu(), self.deviations.cpu())

    def maps(self, image: Tensor, window: tuple[slice, ...]) -> Tensor:
        """What a detail network gets for a part of the image.

        Args:
            image: Normalised intensities, (D, H, W).
            window: The part; starts and stops are multiples of `BLOCK`.

        Returns:
            (1 + 2 C, *window): the image, the context's probabilities, and those with the brightness counted in.
        """
        part = image[window]
        prior = _enlarge(self.probabilities, window, COARSE)
        return torch.cat([part[None], prior, _posterior(part, prior, self.means, self.deviations, window, BLOCK)])

    def brain_box(self) -> tuple[slice, ...] | None:
        """The part of the image that holds the brain, in multiples of `BLOCK`; None where there is none."""
        box = ndimage.find_objects(self._brain().astype(np.int8))
        if not box:
            return None
        shape = self.probabilities.shape[1:]
        ratio = BLOCK // COARSE
        starts = [max(0, part.start - _MARGIN) // ratio * BLOCK for part in box[0]]
        stops = [
            min(-(-(part.stop + _MARGIN) // ratio), size // ratio) * BLOCK
            for part, size in zip(box[0], shape, strict=True)
        ]
        return tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))

    def _brain(self) -> np.ndarray:
        """The largest connected part that is no background, boolean, (d, h, w) in coarse voxels."""
        inside = (self.probabilities.argmax(0) > 0).cpu().numpy()
        components, count = ndimage.label(inside)
        if count > 1:
            inside = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
        return np.asarray(inside)


@torch.no_grad()
def look(context: nn.Module, image: Tensor, *, bf16: bool) -> Guide:
    """See a whole head.

    Args:
        context: Context network in evaluation mode.
        image: Normalised intensities, (D, H, W), on the network's device; sizes are multiples of `BLOCK` and of twice
            the network's stride.
        bf16: Whether to compute in bfloat16.
    """
    probabilities = _probabilities(context, functional.avg_pool3d(image[None, None], COARSE), bf16)
    fine = functional.avg_pool3d(image[None, None], _FINE)[0, 0]
    # squares of single voxels: those of averages would hide the noise
    squares = functional.avg_pool3d(image.square()[None, None], _FINE)[0, 0]
    whole = tuple(slice(0, size) for size in fine.shape)
    prior = _enlarge(probabilities, whole, COARSE // _FINE)
    share = prior
    for turn in range(_ROUNDS):
        means, deviations = _brightness(fine, squares, share)
        if turn < _ROUNDS - 1:
            share = _posterior(fine, prior, means, deviations, whole, BLOCK // _FINE)
    return Guide(probabilities, means, deviations)


def brain_mask(maps: Tensor, num_classes: int) -> Tensor:
    """Where maps (1 + 2 C, *S) say that there may be brain, boolean, (*S)."""
    background = maps[1], maps[1 + num_classes]
    return torch.minimum(*background) < _MAYBE


def channels(num_classes: int) -> int:
    """How many maps a detail network gets."""
    return 1 + 2 * num_classes


def _posterior(
    image: Tensor, prior: Tensor, means: Tensor, deviations: Tensor, window: tuple[slice, ...], cell: int
) -> Tensor:
    """Probability of every class in a window where its brightness counts too, (C, *window).

    Args:
        image: The window of the image.
        prior: Probability of every class by place alone, (C, *window).
        means: Brightness of every class in each cell of the whole image.
        deviations: Its standard deviation.
        window: The part of the whole image.
        cell: Voxels along the side of a cell.
    """
    evidence = (prior + _FLOOR).log_()
    for number in range(len(prior)):
        mean = _enlarge(means[number : number + 1], window, cell)[0]
        deviation = _enlarge(deviations[number : number + 1], window, cell)[0]
        evidence[number] -= deviation.log() + 0.5 * ((image - mean) / deviation).square_()
    return evidence.softmax(0)


def _probabilities(context: nn.Module, small: Tensor, bf16: bool) -> Tensor:
    """Probability of every class where the brain is; a field of `FIELD` is moved until the brain is in its middle.

    The network has not learnt what lies farther away, such as a neck: that is background.
    """
    shape = small.shape[2:]
    sides = [min(size, FIELD // COARSE) for size in shape]
    starts = [(size - side) // 2 for size, side in zip(shape, sides, strict=True)]
    for _ in range(_LOOKS):
        field = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        with torch.autocast(small.device.type, torch.bfloat16, enabled=bf16):
            scores = context(small[(slice(None), slice(None), *field)].contiguous(memory_format=torch.channels_last_3d))
        seen = scores[0].float().softmax(0)
        before, starts = starts, []
        for axis, (first, side, size) in enumerate(zip(before, sides, shape, strict=True)):
            mass = (1 - seen[0]).sum(dim=tuple(other for other in range(3) if other != axis)).cumsum(0)
            middle = first + int((mass < mass[-1] / 2).sum())
            starts.append(min(max(0, middle - side // 2), size - side))
        if starts == before:
            break
    probabilities = seen.new_zeros((len(seen), *shape))
    probabilities[0] = 1
    probabilities[(slice(None), *field)] = seen
    return probabilities


def _brightness(image: Tensor, squares: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the brightness of every class in every cell and around it."""
    weights = shares.square()  # voxels of one class count, mixed ones hardly do
    sums = [functional.avg_pool3d((weights * power)[None], BLOCK // _FINE)[0] for power in (1, image, squares)]
    local = [_spread(total) for total in sums]
    overall = [total.mean(dim=(1, 2, 3), keepdim=True) for total in sums]
    scale = _TRUST / overall[0].clamp_min(1e-6)
    count, first, second = (here + scale * all_ for here, all_ in zip(local, overall, strict=True))
    mean = first / count
    variance = (second / count - mean.square()).clamp_min(_LEAST_DEVIATION**2)
    # noise and shading are the same for all tissues; a class that holds others' voxels must not grow wide by them
    pooled = (count[1:] * variance[1:]).sum(0) / count[1:].sum(0)
    shared = torch.cat([variance[:1], (1 - _SHARED) * variance[1:] + _SHARED * pooled])
    return mean, shared.sqrt()


def _spread(cells: Tensor) -> Tensor:
    """Gaussian blur over cells; nothing lies outside."""
    reach = round(2 * _SPREAD)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=cells.device) / _SPREAD) ** 2)
    taps /= taps.sum()
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(taps)
        padding = [reach if other == axis else 0 for other in range(3)]
        cells = functional.conv3d(cells[:, None], taps.view(shape), padding=padding)[:, 0]
    return cells


def _enlarge(coarse: Tensor, window: tuple[slice, ...], factor: int) -> Tensor:
    """A window of maps (C, d, h, w) at `factor` times their resolution, linear in between."""
    padded = functional.pad(coarse[None], (1,) * 6, mode="replicate")[0]
    around = tuple(slice(part.start // factor, part.stop // factor + 2) for part in window)
    larger = functional.interpolate(
        padded[(slice(None), *around)][None], scale_factor=factor, mode="trilinear", align_corners=False
    )[0]
    return larger[:, factor:-factor, factor:-factor, factor:-factor]
