"""How a scanner shows a head: brightness of the tissues, resolution, shading, noise."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from voxpool.data.head_labels import AIR, CLASS_OF, STRUCTURES, T1_LIKE, T2_LIKE
from voxpool.data.synthesis.random import chance, integer, normal, uniform

_CLASS_OF = torch.from_numpy(CLASS_OF)


def draw_brightness(generator: Generator, contrast: str) -> Tensor:
    """Mean brightness of every structure from 0 to 1, (structures,).

    Args:
        generator: Where the randomness comes from.
        contrast: "t1" or "t2" for what a structure looks like there, give or take; "any" for no knowledge of it.
    """
    count = len(STRUCTURES)
    jitter = torch.randn(count, generator=generator)
    if contrast == "any":
        # tissues of a class look alike in half of the cases, as they mostly do
        alike = chance(generator, 0.5)
        family = torch.rand(int(_CLASS_OF.max()) + 1, generator=generator)[_CLASS_OF.long()]
        own = torch.rand(count, generator=generator)
        around = _CLASS_OF == 0
        brightness = torch.where(around, own, family + 0.05 * jitter) if alike else own
    else:
        known = torch.from_numpy(T1_LIKE if contrast == "t1" else T2_LIKE)
        brightness = torch.rand(count, generator=generator)
        brightness[: len(known)] = known
        # scanners differ most in how far grey and white matter lie apart
        squeeze = uniform(generator, 0.6, 1.3)
        middle = 0.5 * (brightness[1] + brightness[2])
        brain = (_CLASS_OF > 2) & (torch.arange(count) < len(known))
        brightness = torch.where(brain, middle + squeeze * (brightness - middle), brightness) + 0.03 * jitter
    brightness[AIR] = 0.03 * float(torch.rand((), generator=generator))
    return brightness.clamp(0, 1)


def paint(structures: Tensor, brightness: Tensor, factor: int) -> Tensor:
    """Brightness of voxels that are `factor` mm wide, with their partial volumes, (*S / factor)."""
    values = brightness.to(structures.device)[structures.int()]
    return functional.avg_pool3d(values[None, None], factor)[0, 0] if factor > 1 else values


def blur(image: Tensor, deviations: tuple[float, float, float]) -> Tensor:
    """Gaussian blur with a standard deviation in voxels along each axis; edges go on outside."""
    for axis, deviation in enumerate(deviations):
        if deviation < 0.2:
            continue
        reach = max(1, math.ceil(2.5 * deviation))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / deviation) ** 2)
        taps /= taps.sum()
        moved = image.movedim(axis, -1)
        flat = functional.pad(moved.reshape(1, -1, moved.shape[-1]), (reach, reach), mode="replicate")
        total = sum(tap * flat[..., i : i + moved.shape[-1]] for i, tap in enumerate(taps))
        image = total.reshape(moved.shape).movedim(-1, axis)
    return image


def draw_resolution(image: Tensor, generator: Generator, *, voxel: float, thickest: float) -> Tensor:
    """What a coarser scan would know of an image: thick slices along one axis, or larger voxels, or none of it."""
    kind = uniform(generator, 0, 1)
    if kind < 0.35:
        axis, mm = integer(generator, 0, 2), uniform(generator, voxel, thickest)
        targets = [mm if other == axis else voxel for other in range(3)]
    elif kind < 0.6:
        targets = [uniform(generator, voxel, max(voxel, 0.4 * thickest))] * 3
    else:
        softness = uniform(generator, 0, 0.5)
        return blur(image, (softness, softness, softness))
    coarse = [max(2, round(side * voxel / mm)) for side, mm in zip(image.shape, targets, strict=True)]
    small = functional.interpolate(image[None, None], coarse, mode="area")
    return functional.interpolate(small, image.shape, mode="trilinear", align_corners=False)[0, 0]


def draw_shading(image: Tensor, generator: Generator, strength: float) -> Tensor:
    """A smooth brightness that differs from place to place, as coils make it."""
    count = integer(generator, 2, 5)
    knots = torch.randn((1, 1, count, count, count), generator=generator) * uniform(generator, 0, strength)
    field = functional.interpolate(knots.to(image.device), image.shape, mode="trilinear", align_corners=True)
    return image * field[0, 0].exp_()


def draw_noise(image: Tensor, generator: Generator, strength: float) -> Tensor:
    """Rician noise: the length of a complex signal with Gaussian noise in both parts (Gudbjartsson & Patz 1995)."""
    deviation = uniform(generator, 0, strength)
    real, imaginary = torch.randn((2, *image.shape), generator=generator).to(image.device)
    return ((image + deviation * real).square_() + (deviation * imaginary).square_()).sqrt_()


def draw_gamma(image: Tensor, generator: Generator, strength: float) -> Tensor:
    """A brighter or darker picture: a power of the brightness."""
    return image.clamp_min(0).pow(math.exp(normal(generator, strength)))
