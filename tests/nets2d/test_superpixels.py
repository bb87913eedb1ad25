"""The superpixel branch: nothing at first, then exactly pooling, one linear layer, painting."""

import pytest
import torch
from torch.nn import functional

from tests.nets2d.test_networks import small
from voxpool.nets import create_net
from voxpool.nets2d import PLANAR_NETS, SuperpixelBranch
from voxpool.supervoxels import slic

SIZE = (32, 48)


def trained(net):
    """A branch whose linear layer says something."""
    torch.manual_seed(3)
    torch.nn.init.normal_(net.classifier.weight, std=0.1)
    torch.nn.init.normal_(net.classifier.bias, std=0.1)
    return net.eval()


def block_ids(side):
    rows, columns = (torch.arange(size) // side for size in SIZE)
    return (rows[:, None] * (-(-SIZE[1] // side)) + columns)[None].int()


@pytest.mark.parametrize("name", PLANAR_NETS)
def test_a_fresh_branch_changes_nothing(name):
    base = small(name).eval()
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        want = base(x)
        net = SuperpixelBranch(base).eval()
        segments = torch.from_numpy(slic(x[0].numpy().mean(0), 40))[None]
        torch.testing.assert_close(net(x, segments, int(segments.max()) + 1), want, rtol=0, atol=0)
    assert net.classifier.weight.shape == (5, base.feature_channels)


@pytest.mark.parametrize("name", ["enet", "fast_scnn", "swiftnet_rn18", "segnet"])
def test_blocks_are_average_pooling(name):
    """Superpixels that are the cells of a grid: means over them are what average pooling gives."""
    base = small(name).eval()
    net = trained(SuperpixelBranch(base, reduce="mean"))
    x, side = torch.randn(1, 3, *SIZE), 16
    ids = block_ids(side)
    with torch.no_grad():
        features = base.features(x)
        cells = functional.avg_pool2d(features, side * features.shape[2] // SIZE[0])
        weights = net.classifier.weight[:, :, None, None]
        scored = functional.conv2d(cells, weights, net.classifier.bias)
        want = base(x) + functional.interpolate(scored, size=SIZE, mode="nearest-exact")
        torch.testing.assert_close(net(x, ids, int(ids.max()) + 1), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
@pytest.mark.parametrize("name", ["r2unet", "segnet"])
def test_a_superpixel_per_pixel_is_a_pointwise_convolution(name, reduce):
    base = small(name).eval()
    net = trained(SuperpixelBranch(base, reduce=reduce))
    x = torch.randn(1, 3, *SIZE)
    ids = torch.arange(SIZE[0] * SIZE[1]).reshape(1, *SIZE).int()
    with torch.no_grad():
        weights = net.classifier.weight[:, :, None, None]
        want = base(x) + functional.conv2d(base.features(x), weights, net.classifier.bias)
        torch.testing.assert_close(net(x, ids, ids.numel()), want, rtol=1e-4, atol=1e-5)


def test_names_of_superpixels_mean_nothing_and_pixels_without_one_keep_their_scores():
    base = small("enet").eval()
    net = trained(SuperpixelBranch(base))
    x = torch.randn(1, 3, *SIZE)
    ids = torch.from_numpy(slic(x[0].numpy().mean(0), 40))[None]
    count = int(ids.max()) + 1
    with torch.no_grad():
        want = net(x, ids, count)
        renamed = torch.randperm(count)[ids.long()].int()
        torch.testing.assert_close(net(x, renamed, count), want)
        left_out = ids.clone()
        left_out[:, :10] = -1
        torch.testing.assert_close(net(x, left_out, count)[:, :, :10], base(x)[:, :, :10])


def test_the_branch_learns_and_its_base_with_it():
    net = create_net("enet", 3, 5, head="superpixels")
    x = torch.randn(1, 3, *SIZE)
    ids = block_ids(8)
    net(x, ids, int(ids.max()) + 1).square().mean().backward()
    assert net.classifier.weight.grad.abs().sum() > 0
    trained(net).train()
    net.zero_grad()
    net(x, ids, int(ids.max()) + 1).square().mean().backward()
    assert net.base.initial.weight.grad.abs().sum() > 0


def test_torch_takes_a_network_with_its_branch_as_one_graph():
    net = trained(SuperpixelBranch(small("enet").eval()))
    x, ids = torch.randn(1, 3, *SIZE), block_ids(8)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, ids, 24), net(x, ids, 24), rtol=1e-5, atol=1e-5)
