"""The guide: windows equal the whole, brightness is measured where it is, and contrast does not matter."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from voxpool.engine import to_device
from voxpool.errors import UsageError
from voxpool.nets import GuidedVoxResNet, add_head, create_net
from voxpool.nets.guide import BLOCK, Guide, brain_mask, channels, look
from voxpool.nets.guided import merge_scores
from voxpool.tiles import predict

SHAPE = (48, 32, 64)
WHOLE = tuple(slice(0, size) for size in SHAPE)
BRIGHTNESS = (0.0, 1.0, 2.5)


class Oracle(nn.Module):
    """A context network that knows the truth, smoothed."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__()
        shares = functional.one_hot(labels.long(), 3).movedim(-1, 0).float()
        coarse = functional.avg_pool3d(shares[None], 4)
        self.scores = (coarse + 0.02).log()

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        assert small.shape[2:] == self.scores.shape[2:]
        return self.scores


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    radius = grid.square().sum(0).sqrt()
    return (radius < 0.8).int() + (radius < 0.45).int()


@pytest.fixture(scope="module")
def image(labels: torch.Tensor) -> torch.Tensor:
    clean = torch.tensor(BRIGHTNESS)[labels]
    return clean + 0.2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def guide(labels: torch.Tensor, image: torch.Tensor) -> Guide:
    return look(Oracle(labels), image, bf16=False)


def test_windows_are_parts_of_the_whole(guide: Guide, image: torch.Tensor) -> None:
    whole = guide.maps(image, WHOLE)
    assert whole.shape == (channels(3), *SHAPE)
    for window in ((slice(8, 24), slice(0, 8), slice(40, 64)), (slice(0, 48), slice(16, 32), slice(8, 16))):
        torch.testing.assert_close(guide.maps(image, window), whole[(slice(None), *window)])


def test_probabilities_are_interpolated_and_sum_to_one(guide: Guide, image: torch.Tensor) -> None:
    maps = guide.maps(image, WHOLE)
    expected = functional.interpolate(guide.probabilities[None], SHAPE, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(maps[1:4], expected)
    torch.testing.assert_close(maps[1:4].sum(0), torch.ones(SHAPE))
    torch.testing.assert_close(maps[4:].sum(0), torch.ones(SHAPE))
    assert torch.equal(maps[0], image)


def test_brightness_is_that_of_the_classes(guide: Guide) -> None:
    middle = tuple(size // 2 for size in guide.means.shape[1:])
    for number, brightness in enumerate(BRIGHTNESS):
        # voxels at borders are mixed, and make the noise of 0.2 look larger
        assert float(guide.means[(number, *middle)]) == pytest.approx(brightness, abs=0.3)
        assert 0.2 <= float(guide.deviations[(number, *middle)]) < 0.7


def test_brightness_sharpens_the_borders(guide: Guide, image: torch.Tensor, labels: torch.Tensor) -> None:
    maps = guide.maps(image, WHOLE)
    before = float((maps[1:4].argmax(0) == labels).float().mean())
    after = float((maps[4:].argmax(0) == labels).float().mean())
    assert after > before
    assert 1 - after < 0.6 * (1 - before)


def test_contrast_does_not_matter(guide: Guide, image: torch.Tensor, labels: torch.Tensor) -> None:
    inverted = look(Oracle(labels), 3 - image, bf16=False).maps(3 - image, WHOLE)
    torch.testing.assert_close(inverted[1:], guide.maps(image, WHOLE)[1:], atol=2e-3, rtol=1e-2)


def test_shading_is_followed(labels: torch.Tensor, image: torch.Tensor) -> None:
    shade = torch.linspace(0.6, 1.6, SHAPE[2])
    shaded = image * shade
    found = look(Oracle(labels), shaded, bf16=False)
    assert float(found.means[2, 3, 2, 1]) < float(found.means[2, 3, 2, 6])
    right = float((found.maps(shaded, WHOLE)[4:].argmax(0) == labels).float().mean())
    plain = float((found.maps(shaded, WHOLE)[1:4].argmax(0) == labels).float().mean())
    assert right > plain


def test_the_box_holds_the_brain(guide: Guide, labels: torch.Tensor) -> None:
    box = guide.brain_box()
    assert box is not None
    assert all(part.start % BLOCK == part.stop % BLOCK == 0 for part in box)
    outside = labels.clone()
    outside[box] = 0
    assert not outside.any()
    nothing = torch.zeros_like(guide.probabilities)
    nothing[0] = 1
    assert Guide(nothing, guide.means, guide.deviations).brain_box() is None


def test_the_mask_holds_what_may_be_brain(guide: Guide, image: torch.Tensor, labels: torch.Tensor) -> None:
    mask = brain_mask(guide.maps(image, WHOLE), 3)
    assert mask[labels > 0].float().mean() > 0.99
    assert mask[labels == 0].float().mean() < 0.3


class Lamp(nn.Module):
    """A context network that takes what is bright for brain, and remembers how much it saw at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(small.shape[2:]))
        return torch.cat([0 * small, 20 * small - 10], 1)


def test_the_field_moves_to_the_brain_and_the_rest_is_background() -> None:
    image = torch.zeros(256, 64, 288)
    image[140:220, 8:56, 20:100] = 1  # the brain, off the middle
    image[10:18, 8:56, 250:270] = 1  # too far away to belong to it
    lamp = Lamp()
    found = look(lamp, image, bf16=False).probabilities[1] > 0.5
    assert set(lamp.seen) == {(48, 16, 48)}
    assert 1 < len(lamp.seen) <= 4
    expected = torch.zeros_like(found)
    expected[35:55, 2:14, 5:25] = True
    assert torch.equal(found, expected)


@pytest.fixture
def net() -> GuidedVoxResNet:
    torch.manual_seed(0)
    return create_net("guided_voxresnet", 1, 3, reduction=8, context_reduction=8, context_stages=3)


def test_training_begins_at_the_guides_answer(net: GuidedVoxResNet) -> None:
    image = torch.randn(1, 1, 32, 32, 32)
    maps = look(net.context, image[0, 0], bf16=False).maps(image[0, 0], (slice(0, 32),) * 3)
    expected = maps[4:].clamp_min(1e-3).log()
    torch.testing.assert_close(net.segment_whole(image)[0], expected)
    torch.testing.assert_close(net(maps[None])[0], expected)


def test_tiles_equal_the_whole(net: GuidedVoxResNet) -> None:
    nn.init.normal_(net.head.classifier.classifiers[0].weight, std=0.2)
    headed = to_device(add_head(net, "v3"), torch.device("cpu")).eval()
    nn.init.normal_(headed.supervoxel_classifier.weight, std=0.2)
    rng = np.random.default_rng(0)
    maps = torch.rand(7, 40, 32, 24, generator=torch.Generator().manual_seed(1))
    segments = (np.indices((40, 32, 24)) // 6 * np.array([24, 4, 1]).reshape(3, 1, 1, 1)).sum(axis=0)
    segments = np.where(
        rng.random((40, 32, 24)) < 0.1, -1, np.unique(segments, return_inverse=True)[1].reshape(40, 32, 24)
    )
    options = {"device": torch.device("cpu"), "bf16": False}
    whole = predict(headed, maps, segments.astype(np.int32), **options)
    tiled = predict(headed, maps, segments.astype(np.int32), tile=16, **options)
    assert (whole == tiled).mean() > 0.9995
    assert len(np.unique(whole)) == 3


def test_probabilities_of_merged_classes_add_up() -> None:
    scores = torch.randn(2, 5, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    merged = (0, 2, 1, 2, 0)
    fine, coarse = scores.softmax(1), merge_scores(scores, merged, axis=1).softmax(1)
    for group in range(3):
        members = [number for number, other in enumerate(merged) if other == group]
        torch.testing.assert_close(coarse[:, group], fine[:, members].sum(1))


def test_a_merged_net_scores_the_coarser_classes(net: GuidedVoxResNet) -> None:
    options = {"reduction": 8, "context_reduction": 8, "context_stages": 3}
    merged = create_net("guided_voxresnet", 1, 2, merged=[0, 1, 1], **options)
    merged.load_state_dict(net.state_dict())
    maps = torch.rand(1, channels(3), 16, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = merge_scores(net.eval()(maps), (0, 1, 1), axis=1)
    torch.testing.assert_close(merged.eval()(maps), expected)
    with pytest.raises(UsageError, match="merged must name each of the 2 classes"):
        create_net("guided_voxresnet", 1, 2, merged=[0, 0, 0], **options)


def test_features_and_head_are_the_network(net: GuidedVoxResNet) -> None:
    maps = torch.rand(2, channels(3), 16, 16, 16, generator=torch.Generator().manual_seed(4))
    features = net.eval().features(maps)
    assert sum(part.shape[1] for part in features) == net.feature_channels
    torch.testing.assert_close(net.head(features), net(maps), rtol=0, atol=0)
