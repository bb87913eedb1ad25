"""VoxResNet against the published layer table: counts, sizes, receptive field."""

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.nets import SegResNet, VoxResNet, count_parameters, create_net

# design table: parameters of base (= V1), V2 and V3 with 1 input channel and 4 classes
COUNTS = {1: (6_930_000, 6_906_692, 6_930_900), 4: (54_040, 51_540, 54_140), 8: (14_288, 13_036, 14_340)}


@pytest.mark.parametrize("reduction", COUNTS)
def test_parameter_counts(reduction: int) -> None:
    base, v2, v3 = COUNTS[reduction]
    counts = {
        head: count_parameters(create_net("voxresnet", head=head, reduction=reduction))
        for head in ("base", "v1", "v2", "v3")
    }
    assert counts == {"base": base, "v1": base, "v2": v2, "v3": v3}


def test_two_input_channels_add_one_kernel_each() -> None:
    assert count_parameters(VoxResNet(in_channels=2)) == 6_930_864


@pytest.mark.parametrize(
    ("stages", "res_per_stage", "reduction", "count"),
    [(4, 2, 4, 438_432), (4, 1, 8, 100_872), (3, 2, 4, 145_884), (3, 1, 8, 30_740), (2, 1, 4, 40_120)],
)
def test_other_readings_of_the_reduced_net(stages: int, res_per_stage: int, reduction: int, count: int) -> None:
    net = VoxResNet(reduction=reduction, stages=stages, res_per_stage=res_per_stage)
    assert count_parameters(net) == count


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["voxresnet", "segresnet"])
def test_features_and_head_are_the_network(name: str, dims: int) -> None:
    torch.manual_seed(0)
    net = create_net(name, 2, 5, spatial_dims=dims).eval()
    x = torch.randn(2, 2, *(16,) * dims)
    features = net.features(x)
    assert sum(f.shape[1] for f in features) == net.feature_channels
    assert all(f.shape[2:] == x.shape[2:] for f in features)
    scores = net.head(features)
    assert scores.shape == (2, 5, *(16,) * dims)
    torch.testing.assert_close(scores, net(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VoxResNet(spatial_dims=2),
        lambda: VoxResNet(spatial_dims=2, reduction=8),
        lambda: VoxResNet(spatial_dims=2, reduction=4, stages=3, res_per_stage=1),
        lambda: SegResNet(spatial_dims=2),
    ],
)
def test_receptive_radius_bounds_what_a_voxel_can_reach(make) -> None:
    torch.manual_seed(0)
    net = make().eval()
    radius = net.receptive_radius
    side = 2 * (radius + 24) // net.stride * net.stride
    reached = 0
    for offset in (0, net.stride - 1):  # the two ends of a coarsest cell reach farthest
        centre = side // 2 // net.stride * net.stride + offset
        x = torch.randn(1, 1, side, side, requires_grad=True)  # zeros would meet the kink of every ReLU
        net(x)[0, :, centre, centre].sum().backward()
        touched = (x.grad[0, 0] != 0).any(1).nonzero().flatten() - centre
        reached = max(reached, int(touched.abs().max()))
    assert reached <= radius
    # not merely a safe bound: a margin of twice the reach would waste eight times the work
    assert radius <= reached + net.stride


def test_deep_supervision_scales_sum_to_the_scores() -> None:
    torch.manual_seed(0)
    net = VoxResNet(reduction=4).eval()
    features = net.features(torch.randn(1, 1, 8, 8, 8))
    torch.testing.assert_close(sum(net.head.per_scale(features)), net.head(features))


def test_sum_of_scales_is_one_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    net = VoxResNet(reduction=4).eval()
    features = net.features(torch.randn(1, 1, 8, 8, 8))
    weight = torch.cat([c.weight for c in net.head.classifiers], dim=1)
    bias = sum(c.bias for c in net.head.classifiers)
    joined = torch.nn.functional.conv3d(torch.cat(features, 1), weight, bias, padding=1)
    torch.testing.assert_close(net.head(features), joined, rtol=1e-5, atol=1e-5)


def test_segresnet_is_monais_network() -> None:
    from monai.networks.nets.segresnet import SegResNet as Monai

    torch.manual_seed(0)
    ours = SegResNet(1, 4).eval()
    monai = Monai(spatial_dims=3, init_filters=8, in_channels=1, out_channels=4, norm=("BATCH", {})).eval()
    state = {
        name.replace("net.conv_final.", "conv_final.").replace("head.layer.", "conv_final.2.").removeprefix("net."): v
        for name, v in ours.state_dict().items()
    }
    monai.load_state_dict(state)
    x = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(ours(x), monai(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduction": 3}, "reduction must divide 32, got 3"),
        ({"reduction": 0}, "reduction must divide 32, got 0"),
        ({"stages": 5}, "stages must be 1 to 4, got 5"),
    ],
)
def test_wrong_options_are_named(options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        VoxResNet(**options)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match=r"multiples of 8, got \(12, 16, 16\)"):
        VoxResNet()(torch.zeros(1, 1, 12, 16, 16))


def test_unknown_names_are_listed() -> None:
    with pytest.raises(UsageError, match="unknown network 'unet'; take one of voxresnet"):
        create_net("unet")
    with pytest.raises(UsageError, match="head must be base or one of v1, v2, v3, v3stats, v3nested, got 'v4'"):
        create_net("voxresnet", reduction=8, head="v4")
