"""Batches for networks for images, and how their scores are judged."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from voxpool.batches2d import ImageLoss, class_weights, image_batches, mean_dice, read_case
from voxpool.data2d import ImageCase
from voxpool.data2d.classes import plain_classes
from voxpool.engine import TrainConfig
from voxpool.errors import InputError, UsageError
from voxpool.nets import create_net
from voxpool.supervoxels import slic

CLASSES = plain_classes(("left", "right", "rare"))


@pytest.fixture
def cases(tmp_path):
    found = []
    for number in range(3):
        rng = np.random.default_rng(number)
        labels = np.zeros((32, 48), np.uint8)
        labels[:, 24:] = 1
        labels[:2, :4] = 2
        labels[-1] = 255
        image = np.where(labels[..., None] == 1, 200, 60).astype(np.uint8) + rng.integers(0, 9, (32, 48, 3), np.uint8)
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}_labels.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(labels).save(paths[1])
        found.append(ImageCase(str(number), *paths))
    return found


CONFIG = TrainConfig(iterations=10, crop=(32, 32), batch_size=2, seed=3)


def test_a_step_sees_the_same_whenever_it_is_drawn(cases):
    draw = image_batches(cases, CLASSES, CONFIG, pixels_each=16)
    again = image_batches(cases, CLASSES, CONFIG, pixels_each=16)
    draw(0)
    (batch, count), (other, number) = draw(7), again(7)
    assert count == number
    assert all(torch.equal(batch[name], other[name]) for name in ("image", "labels", "segments"))
    assert not torch.equal(batch["image"], draw(8)[0]["image"])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["segments"].max() == count - 1


def test_with_and_without_superpixels_the_crops_are_the_same(cases):
    base, none = image_batches(cases, CLASSES, CONFIG)(4)
    with_superpixels, _ = image_batches(cases, CLASSES, CONFIG, pixels_each=16)(4)
    assert none is None
    assert torch.equal(base["image"], with_superpixels["image"])
    assert torch.equal(base["labels"], with_superpixels["labels"])
    expected = slic(base["image"][0], 64, compactness=0.1, channel_axis=0)
    assert torch.equal(with_superpixels["segments"][0], expected)


def test_images_are_brought_to_a_size(cases):
    colours, labels = read_case(cases[0], CLASSES, (16, 24))
    assert colours.shape == (16, 24, 3)
    assert labels.shape == (16, 24)
    assert (labels[2:-1, 12:] == 1).all()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(cases[0].labels)
    with pytest.raises(InputError, match=r"0\.png has 32 x 48 pixels, its labels 4 x 4"):
        read_case(cases[0], CLASSES)
    with pytest.raises(UsageError, match="at least one image"):
        image_batches([], CLASSES, CONFIG)


def test_rare_classes_weigh_more(cases):
    total = 3 * 31 * 48
    counts = [3 * (31 * 24 - 8), 3 * 31 * 24, 3 * 8]
    expected = [1 / math.log(1.02 + count / total) for count in counts]
    np.testing.assert_allclose(class_weights(cases, CLASSES), expected, rtol=1e-6)


def test_the_loss_is_cross_entropy_of_what_counts():
    torch.manual_seed(0)
    net = create_net("pspnet", 3, 3, depth=18).train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    batch = {"image": torch.randn(2, 3, 32, 32), "labels": torch.randint(0, 3, (2, 32, 32))}
    batch["labels"][:, :5] = 255
    weights = torch.tensor([1.0, 2.0, 5.0])
    loss, dice = ImageLoss(weights)(net, batch, None, score=True)
    own, auxiliary = net.training_scores(batch["image"])
    flat = batch["labels"][:, 5:]

    def judged(scores):
        log = functional.log_softmax(scores[:, :, 5:], 1).gather(1, flat[:, None])[:, 0]
        return -(weights[flat] * log).sum() / weights[flat].sum()

    torch.testing.assert_close(loss, judged(own) + 0.4 * judged(auxiliary))
    assert dice == pytest.approx(mean_dice(own[:, :, 5:], flat))


def test_the_dice_is_that_of_each_class_there_is():
    target = torch.tensor([[0, 0, 1, 1, 255, 255]])
    scores = functional.one_hot(torch.tensor([[0, 1, 1, 1, 2, 0]]), 3).movedim(-1, 1).float()
    # class 0: 2 * 1 / (2 + 1), class 1: 2 * 2 / (2 + 3); class 2 is not there
    assert mean_dice(scores, target) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_a_branch_has_the_auxiliary_scores_too():
    net = create_net("pspnet", 3, 3, head="superpixels", depth=18).train()
    batch = {"image": torch.randn(2, 3, 32, 32), "labels": torch.randint(0, 3, (2, 32, 32))}
    batch["segments"] = torch.arange(4).repeat_interleave(8).view(1, 32, 1).expand(2, 32, 32).int().contiguous()
    loss, none = ImageLoss()(net, batch, 4)
    loss.backward()
    assert none is None
    assert net.classifier.weight.grad.abs().sum() > 0
    assert net.base.auxiliary[-1].weight.grad.abs().sum() > 0
