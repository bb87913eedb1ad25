"""Another head from a label map: turned, stretched, bent, with wider or narrower ventricles and sulci."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from voxpool.data.head_labels import STRUCTURES
from voxpool.data.synthesis.config import SynthesisConfig
from voxpool.data.synthesis.head_map import NODE, HeadMap
from voxpool.data.synthesis.random import chance, integer, normal, uniform

_SQUARINGS = 5


def draw_shape(head: HeadMap, config: SynthesisConfig, generator: Generator) -> Tensor:
    """Structures of a new head in a field of view around its brain, .

    The bending is a diffeomorphism: a stationary velocity field, integrated by scaling and squaring (Arsigny et al.
    2006), so that no tissue tears or folds.

    Args:
        head: Label map.
        config: How different the head may be.
        generator: Where the randomness comes from.

    Returns:
        Index into `STRUCTURES`, uint8, (*size / grid).
    """
    device = head.structures.device
    nodes = [side // NODE + 1 for side in config.size]
    half = torch.tensor([(side - 1) / 2 for side in config.size]).view(3, 1, 1, 1)
    axes = [torch.linspace(-1, 1, count) for count in nodes]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")) * half  # (3, *nodes), mm from the middle
    matrix = _draw_matrix(generator, config.rotation, config.scaling)
    where = torch.einsum("ij,jdhw->idhw", matrix, place)
    middle = torch.tensor(head.centre) + torch.tensor(
        [uniform(generator, -config.shift, config.shift) for _ in range(3)]
    )
    middle = middle.view(3, 1, 1, 1)
    velocity = _draw_velocity(generator, nodes, config.bending)
    extent = torch.tensor(head.structures.shape, dtype=torch.float32).view(3, 1, 1, 1) - 1
    pull = _sample(head.outward.cpu(), 2 * (where + middle) / extent - 1)
    velocity = velocity + normal(generator, config.ventricles) * torch.einsum("ij,idhw->jdhw", matrix, pull)
    bent = place + _integrate(velocity, place, half)
    source = torch.einsum("ij,jdhw->idhw", matrix, bent) + middle
    structures = _pick(head.structures, source.to(device), [side // config.grid for side in config.size])
    return _widen_sulci(structures, generator, 1 / config.grid) if chance(generator, config.atrophy) else structures


def _draw_matrix(generator: Generator, rotation: float, scaling: float) -> Tensor:
    """Rotation about three axes, stretches, and a flip of left and right in half of the cases."""
    matrix = torch.eye(3)
    common = uniform(generator, -scaling, scaling)
    for axis in range(3):
        angle = math.radians(uniform(generator, -rotation, rotation))
        turn = torch.eye(3)
        i, j = [other for other in range(3) if other != axis]
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    stretch = [math.exp(common + uniform(generator, -scaling, scaling) / 2) for _ in range(3)]
    stretch[0] *= -1 if chance(generator, 0.5) else 1
    return matrix @ torch.diag(torch.tensor(stretch))


def _draw_velocity(generator: Generator, nodes: list[int], bending: float) -> Tensor:
    """A smooth random field: coarse bends and finer ones."""
    total = torch.zeros(3, *nodes)
    for low, high, share in ((3, 6, 1.0), (8, 14, 0.4)):
        count = integer(generator, low, high)
        knots = torch.randn((1, 3, count, count, count), generator=generator)
        strength = share * uniform(generator, 0, bending)
        total += strength * functional.interpolate(knots, nodes, mode="trilinear", align_corners=True)[0]
    return total


def _sample(field: Tensor, place: Tensor) -> Tensor:
    """A field (C, d, h, w) at places (3, *S) from -1 to 1 along each of its axes; its edge goes on outside."""
    grid = place.flip(0).movedim(0, -1)[None]  # grid_sample names the last axis first
    return functional.grid_sample(field[None], grid, padding_mode="border", align_corners=True)[0]


def _integrate(velocity: Tensor, place: Tensor, half: Tensor) -> Tensor:
    """Displacement in mm after unit time, by scaling and squaring."""
    moved = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        moved = moved + _sample(moved, (place + moved) / half)
    return moved


def _pick(structures: Tensor, source: Tensor, size: list[int]) -> Tensor:
    """The structures that lie nearest to places (3, *nodes), given in voxels, interpolated to every voxel."""
    index: Tensor | None = None
    for axis, length in enumerate(structures.shape):
        at = functional.interpolate(source[None, axis : axis + 1], size, mode="trilinear", align_corners=True)[0, 0]
        at = at.round_().clamp_(0, length - 1).to(torch.int32)
        index = at if index is None else index.mul_(length).add_(at)
    assert index is not None
    return structures.flatten()[index]


def _widen_sulci(structures: Tensor, generator: Generator, share: float) -> Tensor:
    """Turn cortex that touches outer CSF into outer CSF, a share of its voxels."""
    outer = STRUCTURES.index("outer CSF")
    csf = structures == outer
    near = csf.clone()
    for axis in range(3):
        length = structures.shape[axis]
        near.narrow(axis, 1, length - 1).logical_or_(csf.narrow(axis, 0, length - 1))
        near.narrow(axis, 0, length - 1).logical_or_(csf.narrow(axis, 1, length - 1))
    cortex = structures == STRUCTURES.index("cortex")
    if share < 1:
        cortex &= (torch.rand(cortex.shape, generator=generator) < share).to(cortex.device)
    return torch.where(near & cortex, structures.new_tensor(outer), structures)
