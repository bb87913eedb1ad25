"""Dense conditional random field: mean field over all pairs of pixels or voxels, in any number of dimensions.

Krähenbühl and Koltun: Efficient inference in fully connected CRFs with Gaussian edge potentials (2011). One step is

    Q <- softmax(scores + w_s K_s Q + w_b K_b Q),    K = D^-1/2 G D^-1/2,    D = diag(G 1)

with a Gaussian G of places, and one of places and colours; labels that differ repel each other (Potts). The Gaussian of
places is separable and exact. That of places and colours is filtered on the permutohedral lattice (Adams, Baek and
Davis 2010): linear in the number of pixels, close to exact; `exact_crf` computes all pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from voxpool.errors import UsageError

_REACH = 5  # standard deviations, after which a Gaussian is nothing
_MOST_PAIRS = 20_000  # pixels of an image whose pairs fit into memory

Filter = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CRFSettings:
    """How pixels speak to each other; as DeepLab v2 sets it for Pascal VOC.

    Attributes:
        spatial_weight: Weight of neighbours whatever their colour; 0 for none.
        spatial_sigma: How far they are, in pixels or mm.
        bilateral_weight: Weight of neighbours of like colour; 0 for none.
        position_sigma: How far they are, in pixels or mm.
        colour_sigma: How far their colours are, in units of the image.
        iterations: Steps of the mean field.
    """

    spatial_weight: float = 3.0
    spatial_sigma: float = 1.0
    bilateral_weight: float = 4.0
    position_sigma: float = 67.0
    colour_sigma: float = 3.0
    iterations: int = 10


def dense_crf(
    scores: Tensor, image: Tensor, settings: CRFSettings | None = None, *, spacing: Sequence[float] | None = None
) -> Tensor:
    """Probabilities of classes that follow the edges of an image.

    Args:
        scores: Class scores or log-probabilities, (N, num_classes, *S).
        image: What they belong to, (N, C, *S), in units of `colour_sigma`: colours 0 to 255 by default.
        settings: Weights and widths.
        spacing: Size of a pixel along each axis; 1 by default.

    Returns:
        Probabilities, (N, num_classes, *S).

    Raises:
        UsageError: If shapes do not fit, or a width is not positive.

    Differentiable in the scores. Determinism: always the same bits on a CPU; on a GPU only under
    `torch.use_deterministic_algorithms(True)`.
    """
    return _mean_field(scores, image, settings or CRFSettings(), spacing, _spatial_filter, _lattice_filter)


def exact_crf(
    scores: Tensor, image: Tensor, settings: CRFSettings | None = None, *, spacing: Sequence[float] | None = None
) -> Tensor:
    """What `dense_crf` comes close to: the sums over all pairs, for small images.

    Arguments and result are those of `dense_crf`.

    Raises:
        UsageError: As there, or if the image has more than 20 000 pixels.
    """
    count = scores[0, 0].numel()
    if count > _MOST_PAIRS:
        raise UsageError(f"the sums over all pairs are for at most {_MOST_PAIRS} pixels, got {count}; use dense_crf")

    def spatial(size: Sequence[int], steps: Sequence[float], sigma: float, like: Tensor) -> Filter:
        return _pairs_filter(_places(size, steps, like) / sigma)

    return _mean_field(scores, image, settings or CRFSettings(), spacing, spatial, _pairs_filter)


def _mean_field(
    scores: Tensor,
    image: Tensor,
    settings: CRFSettings,
    spacing: Sequence[float] | None,
    spatial: Callable[[Sequence[int], Sequence[float], float, Tensor], Filter],
    bilateral: Callable[[Tensor], Filter],
) -> Tensor:
    size = tuple(scores.shape[2:])
    steps = tuple(spacing) if spacing is not None else (1.0,) * len(size)
    if tuple(image.shape[2:]) != size or image.shape[0] != scores.shape[0] or len(steps) != len(size):
        raise UsageError(
            f"scores {tuple(scores.shape)}, image {tuple(image.shape)} and spacing {steps} do not belong together"
        )
    widths = (settings.spatial_sigma, settings.position_sigma, settings.colour_sigma, *steps)
    if min(widths) <= 0 or settings.iterations < 0:
        raise UsageError(f"widths and spacing of a CRF must be positive, got {widths}")
    found = []
    for own, colours in zip(scores, image, strict=True):
        unary = own.reshape(own.shape[0], -1).T  # (P, num_classes)
        kernels: list[tuple[float, Filter]] = []
        if settings.spatial_weight:
            kernels.append((settings.spatial_weight, spatial(size, steps, settings.spatial_sigma, unary)))
        if settings.bilateral_weight:
            places = _places(size, steps, unary) / settings.position_sigma
            values = colours.reshape(colours.shape[0], -1).T.to(unary.dtype) / settings.colour_sigma
            kernels.append((settings.bilateral_weight, bilateral(torch.cat([places, values], 1))))
        ones = torch.ones_like(unary[:, :1])
        normals = [torch.rsqrt(kernel(ones)) for _, kernel in kernels]
        probabilities = unary.softmax(1)
        for _ in range(settings.iterations):
            total = unary
            for (weight, kernel), normal in zip(kernels, normals, strict=True):
                total = total + weight * normal * kernel(normal * probabilities)
            probabilities = total.softmax(1)
        found.append(probabilities.T.reshape(own.shape))
    return torch.stack(found)


def _places(size: Sequence[int], steps: Sequence[float], like: Tensor) -> Tensor:
    """Places of all pixels in raster order, (P, dims); the last axis first, as the authors' code has x before y."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) * s for n, s in zip(size, steps, strict=True)]
    return torch.stack([axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")][::-1], 1)


def _spatial_filter(size: Sequence[int], steps: Sequence[float], sigma: float, like: Tensor) -> Filter:
    """Gaussian of places, axis by axis; nothing comes from outside the image."""
    weights = []
    for count, step in zip(size, steps, strict=True):
        reach = min(count - 1, math.ceil(_REACH * sigma / step))
        offsets = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype) * step / sigma
        weights.append(torch.exp(-0.5 * offsets**2).view(1, 1, -1))

    def smooth(values: Tensor) -> Tensor:
        maps = values.T.reshape(values.shape[1], *size)
        for axis, kernel in enumerate(weights, start=1):
            lines = maps.movedim(axis, -1)
            flat = lines.reshape(-1, 1, lines.shape[-1])
            smoothed = functional.conv1d(flat, kernel, padding=kernel.shape[-1] // 2)
            maps = smoothed.view(lines.shape).movedim(-1, axis)
        return maps.reshape(values.shape[1], -1).T

    return smooth


def _pairs_filter(features: Tensor) -> Filter:
    """Gaussian of features by all pairs, (P, P)."""
    kernel = torch.exp(-0.5 * torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") ** 2)
    return lambda values: kernel @ values


def _lattice_filter(features: Tensor) -> Filter:
    """Gaussian of features on the permutohedral lattice, up to a factor that the normalisation takes away.

    A point is spread over the d + 1 corners of its simplex, values of corners are blurred along d + 1 directions, and
    the point reads its corners.
    """
    corners, weights = _simplices(features)  # (P, d + 1, d) and (P, d + 1)
    dims = features.shape[1]
    # corners as single numbers, with room for the neighbours around them
    low = corners.amin((0, 1)) - dims - 1
    extent = (corners.amax((0, 1)) + dims + 1 - low + 1).tolist()
    if math.prod(extent) >= 2**62:
        raise UsageError("the CRF's widths are too small for this image; take larger ones, or fewer channels")
    radix = torch.tensor([math.prod(extent[axis + 1 :]) for axis in range(dims)], device=features.device)
    codes, numbers = torch.unique(((corners - low) * radix).sum(2), return_inverse=True)
    neighbours = []
    for direction in range(dims + 1):
        shift = -torch.ones(dims, dtype=torch.int64, device=features.device)
        if direction < dims:
            shift[direction] = dims
        step = (shift * radix).sum()
        neighbours.append([_found(codes, codes + step), _found(codes, codes - step)])
    flat = numbers.reshape(-1)

    def smooth(values: Tensor) -> Tensor:
        spread = (weights[:, :, None] * values[:, None]).reshape(-1, values.shape[1])
        # the last row stays 0, for neighbours that are not there
        lattice = values.new_zeros((len(codes) + 1, values.shape[1])).index_add(0, flat, spread)
        for before, after in neighbours:
            blurred = lattice[:-1] + 0.5 * (lattice[before] + lattice[after])
            lattice = torch.cat([blurred, lattice[-1:]])
        return (weights[:, :, None] * lattice[numbers]).sum(1)

    return smooth


def _found(codes: Tensor, wanted: Tensor) -> Tensor:
    """Where numbers are in a sorted list; its length for those that are not."""
    places = torch.searchsorted(codes, wanted)
    there = codes[places.clamp(max=len(codes) - 1)] == wanted
    return torch.where(there, places, len(codes))


def _simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of each point's simplex, (P, d + 1, d), and its barycentric coordinates, (P, d + 1)."""
    count, dims = features.shape
    # scaled so that one blur of the lattice has the width 1, then lifted into the plane of sum 0
    scale = math.sqrt(2 / 3) * (dims + 1)
    factors = [scale / math.sqrt((axis + 1) * (axis + 2)) for axis in range(dims)]
    scaled = features * torch.tensor(factors, device=features.device, dtype=features.dtype)
    after = scaled.flip(1).cumsum(1).flip(1)  # sum of this and all later ones
    lifted = features.new_empty((count, dims + 1))
    lifted[:, 0] = after[:, 0]
    for axis in range(1, dims + 1):
        lifted[:, axis] = (after[:, axis] if axis < dims else 0) - axis * scaled[:, axis - 1]
    # the nearest lattice point of remainder 0, and where the others of the simplex lie
    rounded = torch.round(lifted / (dims + 1)).to(torch.int64)
    excess = rounded.sum(1, keepdim=True)
    nearest = rounded * (dims + 1)
    order = (lifted - nearest).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(dims + 1, device=order.device).expand_as(order))
    rank = rank + excess
    nearest = nearest + (dims + 1) * ((rank < 0).long() - (rank > dims).long())
    rank = rank + (dims + 1) * ((rank < 0).long() - (rank > dims).long())
    part = (lifted - nearest) / (dims + 1)
    weights = features.new_zeros((count, dims + 2))
    weights.scatter_add_(1, dims - rank, part)
    weights.scatter_add_(1, dims + 1 - rank, -part)
    weights[:, 0] += 1 + weights[:, dims + 1]
    remainder = torch.arange(dims + 1, device=features.device)
    # corner r: r more along the axes of low rank, r - (d + 1) along the rest
    shift = remainder[None, :, None] - (dims + 1) * (rank[:, None] > dims - remainder[None, :, None])
    return (nearest[:, None] + shift)[:, :, :dims], weights[:, : dims + 1]
