"""Every network for images: the published size, any size of image, a step that learns, and back from a file."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxpool.errors import UsageError
from voxpool.layers.counts import count_folded, count_macs
from voxpool.nets import count_parameters, create_net
from voxpool.nets2d import PLANAR_NETS, ResNet, load_encoder
from voxpool.nets2d.dilation8 import Dilation8
from voxpool.nets2d.gcn import LargeKernel

# number of parameters of each default, and of other configurations, counted from the papers' tables
EXACT = {
    ("enet", ()): 364_311,
    ("fast_scnn", ()): 1_138_051,
    ("spssn", ()): 1_445_251,
    ("spssn", (("crp_stages", 2),)): 1_314_179,
    ("spssn", (("pooling", "stream"),)): 1_494_403,
    ("swiftnet_rn18", ()): 11_797_071,
    ("swiftnet_rn50", ()): 24_502_991,
    ("r2unet", ()): 39_092_563,
    ("pspnet", ()): 51_444_710,
    ("pspnet", (("auxiliary", 256),)): 49_080_038,
    ("pspnet", (("auxiliary", 0),)): 46_715_347,
    ("fcn32s", ()): 136_152_917,
    ("fcn16s", ()): 134_815_994,
    ("fcn8s", ()): 134_489_759,
    ("segnet", ()): 29_449_355,
    ("dilation8", ()): 141_149_720,
    ("dilation8", (("context", "none"),)): 134_346_581,
    ("deeplabv1", ()): 20_505_429,
    ("deeplabv1", (("width", 4096), ("kernel", 4), ("dilation", 4))): 65_140_565,
    ("deeplabv1", (("width", 4096), ("kernel", 7), ("dilation", 4))): 134_346_581,
    ("deeplabv2", ()): 44_048_532,
    ("deeplabv3", ()): 60_996_202,
    ("deeplabv3", (("depth", 50),)): 42_004_074,
    ("deeplabv3", (("auxiliary", False),)): 58_630_997,
    ("refinenet", ()): 118_052_437,
    ("refinenet_lw", ()): 46_349_653,
    ("refinenet_lw", (("depth", 50),)): 27_357_525,
    ("refinenet_lw", (("depth", 152),)): 61_993_301,
    ("gcn", ()): 59_369_620,
    ("gcn", (("depth", 50), ("kernel", 15))): 26_052_308,
}

# small enough to compute with: fewer classes, and the smallest form of the largest networks
SMALL = {
    "deeplabv2": {"depth": 18},
    "deeplabv3": {"depth": 18},
    "refinenet": {"depth": 18},
    "refinenet_lw": {"depth": 18},
    "gcn": {"depth": 18},
    "pspnet": {"depth": 18, "auxiliary": 64},
    "dilation8": {"context": "basic"},
}


def small(name, classes=5, **options):
    torch.manual_seed(0)
    return create_net(name, 3, classes, **{**SMALL.get(name, {}), **options})


def on_meta(name, **options):
    with torch.device("meta"):
        return create_net(name, **options)


@pytest.mark.parametrize(("name", "options"), EXACT, ids=str)
def test_parameters_are_those_of_the_papers_tables(name, options):
    assert count_parameters(on_meta(name, **dict(options))) == EXACT[name, options]


def test_every_network_is_counted_and_agrees_with_what_is_published():
    assert {name for name, options in EXACT if not options} == set(PLANAR_NETS)
    for name, entry in PLANAR_NETS.items():
        net = on_meta(name)
        if entry.parameters is not None:
            counted = count_folded(net) if entry.folded else count_parameters(net)
            assert counted / 1e6 == pytest.approx(entry.parameters, rel=0.02), name
        if entry.gmacs is not None:
            gmacs, (rows, columns) = entry.gmacs
            assert count_macs(net, (1, 3, rows, columns)) / 1e9 == pytest.approx(gmacs, rel=0.03), name


def test_multiply_accumulates_are_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2))
    # 16 x 8 outputs of 4 x 3 x 9; each of the 16 x 8 inputs gives 2 x 4 outputs of the deconvolution from 4 channels
    assert count_macs(net, (2, 3, 32, 16)) == 2 * (16 * 8 * 4 * 27 + 16 * 8 * 4 * 2 * 4)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11, 13, 15])
def test_large_kernels_have_the_papers_numbers(kernel):
    expected = {3: 260, 5: 434, 7: 608, 9: 782, 11: 955, 13: 1129, 15: 1303}[kernel]
    assert count_parameters(LargeKernel(2048, 21, kernel)) // 1000 == expected


@pytest.mark.parametrize("size", [(32, 48), (37, 51)])
@pytest.mark.parametrize("name", PLANAR_NETS)
def test_scores_have_the_images_size(name, size):
    net = small(name).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, *size)
        scores = net(x)
        assert scores.shape == (1, 5, *size)
        assert torch.isfinite(scores).all()
        features = net.features(x)
        assert features.shape[1] == net.feature_channels
        torch.testing.assert_close(net.scores(features, size), scores)


@pytest.mark.parametrize("name", PLANAR_NETS)
def test_a_small_step_against_the_gradient_lowers_the_loss(name):
    """A step of fixed length: the slope says how far the loss must fall, about."""
    net = small(name, classes=3).train()
    for module in net.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    torch.manual_seed(1)
    # VGG's last layers are large, and have no batch norm, for which a single pixel of two images is too little
    side = 32 if name.startswith(("fcn", "dilation")) else 64
    x, target = torch.randn(2, 3, side, side), torch.randint(0, 3, (2, side, side))

    def loss():
        return sum(functional.cross_entropy(scores, target) for scores in net.training_scores(x))

    before = loss()
    before.backward()
    parameters = [p for p in net.parameters() if p.grad is not None]
    length = torch.sqrt(sum(p.grad.square().sum() for p in parameters))
    assert length > 0
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 1e-4 * parameter.grad / length  # noqa: PLW2901 - in place
    assert loss() < before


@pytest.mark.parametrize("name", sorted(set(PLANAR_NETS) - {"fcn16s", "fcn32s", "swiftnet_rn50", "refinenet"}))
def test_weights_come_back_from_a_file(name):
    net = small(name).eval()
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    torch.manual_seed(9)
    again = create_net(name, 3, 5, **SMALL.get(name, {})).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", PLANAR_NETS)
def test_torch_takes_a_network_as_one_graph(name):
    """No break of the graph, and the same scores; what makes machine code of the graph is torch's affair."""
    net = small(name).eval()
    x = torch.randn(1, 3, 32, 48)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("pspnet", 2), ("deeplabv3", 2), ("enet", 1), ("gcn", 1)])
def test_auxiliary_scores_are_for_training_alone(name, count):
    net = small(name).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        scores = net.training_scores(x)
        assert len(scores) == count
        torch.testing.assert_close(scores[0], net(x))
        assert all(each.shape == (1, 5, 64, 64) for each in scores)


def test_a_fresh_context_module_changes_no_score():
    """It begins as the identity, where scores are positive (ReLU stands between its layers)."""
    torch.manual_seed(0)
    for context in ("basic", "large"):
        net = Dilation8(3, 4, context=context)
        scores = torch.rand(1, 4, 12, 12)
        torch.testing.assert_close(net.context(scores), scores)


def test_fresh_deconvolutions_enlarge_bilinearly():
    net = small("fcn8s").eval()
    scores = torch.randn(1, 5, 6, 7)
    with torch.no_grad():
        enlarged = net.last(scores)
    want = functional.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)
    inside = (..., slice(8, -8), slice(8, -8))  # at the border they differ: zeros lie outside
    torch.testing.assert_close(enlarged[inside], want[inside])


def test_weights_of_another_implementation_are_taken_by_order_and_shape():
    torch.manual_seed(0)
    ours, theirs = ResNet(18), ResNet(18)
    foreign = {f"backbone.layer{number}": value for number, value in enumerate(theirs.state_dict().values())}
    foreign["fc.weight"] = torch.zeros(1000, 512)
    load_encoder(ours, {name: value for name, value in foreign.items() if value.ndim})  # counts of batches are scalars
    x = torch.randn(1, 3, 64, 64)
    for one, other in zip(ours.eval()(x), theirs.eval()(x), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(UsageError, match="have the shape"):
        load_encoder(ResNet(50), theirs.state_dict())
    with pytest.raises(UsageError, match="the file holds"):
        load_encoder(ours, dict(list(theirs.state_dict().items())[:9]))


def test_mistakes_are_sentences():
    with pytest.raises(UsageError, match="unknown network 'unet'"):
        create_net("unet")
    with pytest.raises(UsageError, match="must be base or superpixels"):
        create_net("enet", head="v3")
    for name, options in {
        "fcn8s": {"stride": 4},
        "dilation8": {"context": "huge"},
        "spssn": {"pooling": "both"},
    }.items():
        with pytest.raises((UsageError, TypeError)):
            create_net(name, **options)
    with pytest.raises(UsageError, match="a ResNet has the depth"):
        ResNet(20)
