"""Networks on blocks of two resolutions: the whole network on the image, and on the averaged image, to rounding."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.layers.blocks import Blocks
from voxpool.nets import create_net
from voxpool.nets.segblocks import SegBlocks, complexity
from voxpool.nets2d import PLANAR_NETS
from voxpool.ops.block_pad import BlockGrid, block_sample

# the others share their bricks with these; all 18 were compared once, 1.1e-14 at most
PLANAR = ("enet", "fast_scnn", "gcn", "refinenet_lw", "segnet", "spssn", "swiftnet_rn18")
VOLUMES = {
    "voxresnet-r8": {"reduction": 8},
    "voxresnet-r4, instance norm": {"reduction": 4, "norm": "instance", "stages": 3},
}


def make(name, channels, **options):
    torch.manual_seed(0)
    net = create_net(name, channels, 3, **options).double().eval()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


def compare(net, x, grid_shape, block):
    wrapped = SegBlocks(net, block=block)
    with torch.no_grad():
        everything = BlockGrid(torch.ones(grid_shape, dtype=torch.bool))
        assert relative(wrapped(x, everything), net(x)) < 1e-12
        coarse = net(functional.interpolate(x, scale_factor=0.5, mode="area"))
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        enlarged = functional.interpolate(coarse, size=x.shape[2:], mode=mode)
        assert relative(wrapped(x, BlockGrid(torch.zeros(grid_shape, dtype=torch.bool))), enlarged) < 1e-12
        mixed = torch.zeros(grid_shape, dtype=torch.bool)
        mixed.view(-1)[::2] = True
        assert isinstance(wrapped.blocks(x, BlockGrid(mixed)), Blocks)
        scores = wrapped(x, BlockGrid(mixed))
    assert scores.shape == net(x).shape
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", PLANAR)
def test_images_of_one_resolution_are_those_of_the_network(name):
    assert name in PLANAR_NETS
    compare(make(name, 3), torch.randn((1, 3, 64, 128), dtype=torch.float64), (1, 1, 2), 64)


@pytest.mark.parametrize("options", VOLUMES.values(), ids=VOLUMES)
def test_volumes_of_one_resolution_are_those_of_the_network(options):
    x = torch.randn((2, 1, 32, 16, 32), dtype=torch.float64)
    compare(make("voxresnet", 1, **options), x, (2, 2, 1, 2), 16)


def test_a_step_of_training_is_that_of_the_network():
    net = make("voxresnet", 1, reduction=8).train()
    other = copy.deepcopy(net)
    x = torch.randn((2, 1, 16, 16, 32), dtype=torch.float64)
    grid = BlockGrid(torch.ones((2, 1, 1, 2), dtype=torch.bool))
    for scores in (net(x), SegBlocks(other, block=16)(x, grid)):
        scores.square().mean().backward()
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-9, atol=1e-12, msg=name)
    for (name, mine), theirs in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-12, atol=1e-12, msg=name)


def test_a_step_of_training_on_blocks_of_both_resolutions():
    net = make("enet", 3).train()
    for module in net.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    wrapped = SegBlocks(net, block=32)
    x = torch.randn((1, 3, 64, 64), dtype=torch.float64)
    target = torch.randint(0, 3, (1, 64, 64))
    grid = BlockGrid(torch.tensor([[[True, False], [False, True]]]))

    def loss():
        return functional.cross_entropy(wrapped(x, grid), target)

    before = loss()
    before.backward()
    length = sum(float(p.grad.square().sum()) for p in net.parameters()) ** 0.5
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(1e-4 / length * parameter.grad)
    assert loss() < before


def test_blocks_beside_another_resolution_see_it():
    """The first convolution by hand: a block's border reads its neighbour, whatever resolution that has."""
    x = torch.arange(64, dtype=torch.float64).view(1, 1, 4, 16)
    grid = BlockGrid(torch.tensor([[[True, False, True, False]]]))
    blocks = Blocks(*block_sample(x, grid), grid)
    summed = functional.conv2d(blocks, torch.ones((1, 1, 1, 3), dtype=torch.float64), padding=(0, 1))
    # the last column of block 0: its own two columns and the first of block 1, whose means are of 2 x 2
    means = functional.avg_pool2d(x, 2)[0, 0]
    expected = x[0, 0, :, 2] + x[0, 0, :, 3] + means[:, 2].repeat_interleave(2)
    torch.testing.assert_close(summed.high[0, 0, :, 3], expected)
    # the first column of block 1: a mean of block 0's last two columns, and its own two
    torch.testing.assert_close(summed.low[0, 0, :, 0], means[:, 1] + means[:, 2] + means[:, 3])


FUNCTIONS = {
    "a window that is not whole": lambda x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "means of windows": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "a tensor plus twice a map": lambda x: torch.add(torch.ones(tuple(x.shape), dtype=x.dtype), x, alpha=2),
    "a map less a tensor": lambda x: x - torch.ones(tuple(x.shape), dtype=x.dtype),
    "a map times a number per channel": lambda x: x * torch.arange(2, dtype=x.dtype).view(1, 2, 1, 1),
    "two maps beside each other": lambda x: torch.cat([x, 3 * x], 1),
    "softmax": lambda x: functional.softmax(x, 1),
    "a convolution that shrinks": lambda x: functional.conv2d(x, torch.ones((2, 2, 3, 3), dtype=x.dtype)),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_of_blocks_are_those_of_the_map(function):
    x = torch.randn((1, 2, 16, 32), dtype=torch.float64)
    grid = BlockGrid(torch.ones((1, 2, 4), dtype=torch.bool))
    found = function(Blocks(*block_sample(x, grid), grid))
    dense = found.dense() if isinstance(found, Blocks) else found
    torch.testing.assert_close(dense, function(x), rtol=1e-12, atol=1e-12)


def test_what_is_simple_has_no_complexity():
    x = torch.zeros((1, 2, 16, 24))
    x[0, 0, :8, :8] = torch.tensor([1.0, -1.0]).repeat(4)
    x[0, :, 8:, 8:16] = 5.0
    expected = torch.zeros((1, 2, 3))
    expected[0, 0, 0] = 1.0
    torch.testing.assert_close(complexity(x, 8), expected)
    with pytest.raises(UsageError, match="multiples of the block's 8"):
        complexity(x[..., 1:], 8)


def test_the_threshold_chooses_between_the_resolutions():
    net = make("fast_scnn", 3)
    x = torch.randn((1, 3, 64, 128), dtype=torch.float64)
    x[..., :64] *= 0.01
    wrapped = SegBlocks(net, block=64, threshold=0.5)
    assert wrapped.choose(x).high.tolist() == [[[False, True]]]
    for threshold, expected in ((-1.0, net(x)), (1e9, None)):
        wrapped.threshold = threshold
        with torch.no_grad():
            scores = wrapped(x)
        if expected is not None:
            assert relative(scores, expected) < 1e-12
        else:
            assert wrapped.choose(x).num_high == 0
    with pytest.raises(UsageError, match="even"):
        SegBlocks(net, block=7)
