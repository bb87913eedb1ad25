"""Blocks of two resolutions against a reference that walks through every element, and as parts of a whole image."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.ops.block_pad import BlockGrid, block_combine, block_pad, block_sample, enlarge_blocks

GRIDS = {
    "2D": ((2, 3, 4), (8, 6)),
    "2D, one block": ((1, 1, 1), (4, 4)),
    "3D": ((1, 2, 3, 2), (4, 6, 4)),
}


def make(shape, side, *, share=0.5, channels=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    grid = BlockGrid(torch.rand(shape, generator=generator) < share)
    size = [g * s for g, s in zip(shape[1:], side, strict=True)]
    x = torch.randn((shape[0], channels, *size), generator=generator, dtype=dtype)
    return x, grid


def reference(high, low, grid, pad, *, replicate, value):
    """Element by element, as the paper's rules say."""
    index, dims = grid.index.numpy(), high.ndim - 2
    side = high.shape[2:] if len(high) else [2 * s for s in low.shape[2:]]
    outs = []
    for fine in (True, False):
        own = [s if fine else s // 2 for s in side]
        places = np.argwhere(index >= 0 if fine else index < 0)
        out = np.full((len(places), high.shape[1], *(s + 2 * p for s, p in zip(own, pad, strict=True))), value)
        for number, (sample, *place) in enumerate(places):
            for at in itertools.product(*(range(s) for s in out.shape[2:])):
                x = [g * s + a - p for g, s, a, p in zip(place, own, at, pad, strict=True)]
                size = [g * s for g, s in zip(index.shape[1:], own, strict=True)]
                if any(not 0 <= a < b for a, b in zip(x, size, strict=True)):
                    if not replicate:
                        continue
                    x = [min(max(a, 0), b - 1) for a, b in zip(x, size, strict=True)]
                found = index[(sample, *(a // s for a, s in zip(x, own, strict=True)))]
                local = [a % s for a, s in zip(x, own, strict=True)]
                if fine and found < 0:
                    taken = low[(-1 - found, slice(None), *(a // 2 for a in local))]
                elif not fine and found >= 0:
                    taken = high[(found, slice(None), *(slice(2 * a, 2 * a + 2) for a in local))]
                    taken = taken.mean(tuple(range(1, 1 + dims)))
                else:
                    taken = (high if fine else low)[(found if fine else -1 - found, slice(None), *local)]
                out[(number, slice(None), *at)] = taken
        outs.append(torch.from_numpy(out))
    return outs


@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize(("shape", "side"), GRIDS.values(), ids=GRIDS)
def test_padding_is_that_of_the_rules(shape, side, pad, replicate):
    x, grid = make(shape, side)
    high, low = block_sample(x, grid)
    pads = [pad] * len(side)
    expected = reference(high, low, grid, pads, replicate=replicate, value=-7.0)
    for actual, wanted in zip(block_pad(high, low, grid, pads, replicate=replicate, value=-7.0), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-15)


def test_padding_may_differ_between_axes():
    x, grid = make((1, 3, 3), (8, 8))
    high, low = block_sample(x, grid)
    expected = reference(high, low, grid, [0, 3], replicate=False, value=0.0)
    for actual, wanted in zip(block_pad(high, low, grid, [0, 3]), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("shape", "side"), GRIDS.values(), ids=GRIDS)
def test_cut_and_put_together(shape, side):
    x, grid = make(shape, side, share=1.1)
    high, low = block_sample(x, grid)
    assert torch.equal(block_combine(high, low, grid), x)
    mixed = make(shape, side)[1]
    pool = functional.avg_pool2d if len(side) == 2 else functional.avg_pool3d
    coarse = pool(x, 2)
    for axis in range(2, 2 + len(side)):
        coarse = coarse.repeat_interleave(2, axis)
    mask = mixed.high[:, None]
    for axis, size in enumerate(side):
        mask = mask.repeat_interleave(size, axis + 2)
    torch.testing.assert_close(
        block_combine(*block_sample(x, mixed), mixed), torch.where(mask, x, coarse), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("share", [-1, 1.1], ids=["all low", "all high"])
@pytest.mark.parametrize(("shape", "side"), GRIDS.values(), ids=GRIDS)
def test_blocks_of_one_resolution_are_enlarged_as_the_image(shape, side, share):
    x, grid = make(shape, side, share=share)
    mode = "bilinear" if len(side) == 2 else "trilinear"
    high, low = block_sample(x, grid)
    if share < 0:
        x = functional.interpolate(x, scale_factor=0.5, mode="area")
        assert grid.num_high == 0
        torch.testing.assert_close(
            block_combine(high, low, grid, linear=True),
            functional.interpolate(x, scale_factor=2, mode=mode),
            rtol=0,
            atol=1e-14,
        )
    else:
        enlarged = enlarge_blocks(high, low, grid, 2, linear=True)
        torch.testing.assert_close(
            block_combine(*enlarged, grid), functional.interpolate(x, scale_factor=2, mode=mode), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize(("shape", "side"), [((1, 2, 3), (4, 4)), ((1, 2, 1, 2), (4, 2, 4))], ids=["2D", "3D"])
def test_gradients(shape, side, replicate):
    x, grid = make(shape, side, channels=1)
    assert grid.num_high
    assert grid.num_low

    def padded(image):
        return block_pad(*block_sample(image, grid), grid, [1] * len(side), replicate=replicate)

    assert torch.autograd.gradcheck(padded, (x.requires_grad_(),))
    assert torch.autograd.gradcheck(
        lambda image: block_combine(*block_sample(image, grid), grid, linear=True), (x.requires_grad_(),)
    )


def test_the_backward_gives_the_same_bits():
    x, grid = make((2, 4, 4), (8, 8), channels=5, dtype=torch.float32)
    found = []
    for _ in range(5):
        image = x.clone().requires_grad_()
        high, low = block_pad(*block_sample(image, grid), grid, [2, 2], replicate=True)
        weights = [torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) for each in (high, low)]
        ((high * weights[0]).sum() + (low * weights[1]).sum()).backward()
        found.append(image.grad)
    assert all(torch.equal(found[0], each) for each in found[1:])


def test_wrong_arguments_are_named():
    x, grid = make((1, 2, 2), (8, 8))
    high, low = block_sample(x, grid)
    with pytest.raises(UsageError, match="does not divide"):
        block_sample(x[:, :, :-1], grid)
    with pytest.raises(UsageError, match="cannot be halved"):
        block_sample(x[:, :, ::8, ::8], BlockGrid(torch.zeros(1, 2, 2, dtype=torch.bool)))
    with pytest.raises(UsageError, match="padding must be 2 numbers"):
        block_pad(high, low, grid, [5, 1])
    with pytest.raises(UsageError, match="do not fit a grid"):
        block_pad(high[1:], low, grid, [1, 1])
    with pytest.raises(UsageError, match="bool"):
        BlockGrid(torch.zeros(1, 2, 2))
