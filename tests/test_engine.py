"""Training: resuming, determinism, learning, refusals."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxpool.batches import case_batches
from voxpool.data.cache import TrainingCase, cache_case, with_segments
from voxpool.data.layouts import find_dataset
from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.engine import Progress, TrainConfig, TrainResult, step_loss, use_bf16
from voxpool.engine import train as train_on
from voxpool.errors import Cancelled, ModelError, UsageError
from voxpool.losses import dice_cross_entropy, foreground_dice
from voxpool.nets import SupervoxelNet, create_net

CONFIG = TrainConfig(iterations=12, crop=(16, 16, 16), batch_size=2, seed=3)


@pytest.fixture(scope="module")
def cases(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrainingCase]:
    dataset = find_dataset(cohort, image="*_t1.nii.gz", labels="*_labels.nii.gz")
    cache = tmp_path_factory.mktemp("cache")
    prepared = [cache_case(case, PreprocessConfig(), stride=8, folder=cache) for case in dataset.cases[:3]]
    return [with_segments(case, SupervoxelConfig("slic", 200)) for case in prepared]


def _net(head: str = "base") -> nn.Module:
    torch.manual_seed(0)
    return create_net("voxresnet", reduction=8, head=head)


def train(net: nn.Module, cases: list[TrainingCase], config: TrainConfig, **options: Any) -> TrainResult:
    return train_on(net, case_batches(cases, config, net), config, **options)


def _weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("head", ["base", "v3"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_interrupted_equals_uninterrupted(cases: list[TrainingCase], tmp_path: Path, head: str, optimizer: str) -> None:
    config = replace(CONFIG, optimizer=optimizer, auxiliary_weight=0.5)
    straight = _net(head)
    train(straight, cases, config, folder=tmp_path / "a")

    asked = iter(range(100))
    with pytest.raises(Cancelled, match="stopped after 5 of 12 iterations"):
        train(_net(head), cases, config, folder=tmp_path / "b", cancelled=lambda: next(asked) == 5)
    resumed = _net(head)
    nn.init.normal_(next(resumed.parameters()))  # what the net held before must not matter
    result = train(resumed, cases, config, folder=tmp_path / "b")
    _assert_equal(_weights(straight), _weights(resumed))
    assert result.iterations == 12
    assert (tmp_path / "a/log.csv").read_text(encoding="utf-8") == (tmp_path / "b/log.csv").read_text(encoding="utf-8")


def test_rows_after_the_last_checkpoint_are_written_once(cases: list[TrainingCase], tmp_path: Path) -> None:
    config = replace(CONFIG, iterations=30)
    train(_net(), cases, config, folder=tmp_path / "a")
    # a kill after row 20, with the checkpoint of iteration 10
    asked = iter(range(100))
    with pytest.raises(Cancelled):
        train(_net(), cases, config, folder=tmp_path / "b", cancelled=lambda: next(asked) == 10)
    shutil.copy(tmp_path / "a/log.csv", tmp_path / "b/log.csv")
    train(_net(), cases, config, folder=tmp_path / "b")
    assert (tmp_path / "a/log.csv").read_text(encoding="utf-8") == (tmp_path / "b/log.csv").read_text(encoding="utf-8")


def test_two_trainings_give_the_same_bits(cases: list[TrainingCase], tmp_path: Path) -> None:
    nets = [_net("v3"), _net("v3")]
    for number, net in enumerate(nets):
        train(net, cases, CONFIG, folder=tmp_path / str(number))
    _assert_equal(_weights(nets[0]), _weights(nets[1]))
    other = _net("v3")
    train(other, cases, replace(CONFIG, seed=4), folder=tmp_path / "other")
    assert any(not torch.equal(v, _weights(nets[0])[k]) for k, v in _weights(other).items())


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_it_learns(cases: list[TrainingCase], tmp_path: Path, amp: str) -> None:
    seen: list[Progress] = []
    config = replace(CONFIG, iterations=80, crop=(24, 24, 24), batch_size=1, amp=amp)
    train(_net(), cases, config, folder=tmp_path, progress=seen.append)
    assert [p.iteration for p in seen] == list(range(10, 81, 10))
    assert seen[-1].loss < 0.7 * seen[0].loss
    assert seen[-1].dice > seen[0].dice + 0.2
    assert seen[-1].seconds_left == 0


def test_crops_hold_compacted_supervoxels(cases: list[TrainingCase]) -> None:
    draw = case_batches(cases, CONFIG, _net("v3"))
    for iteration in range(5):
        batch, count = draw(iteration)
        assert batch["image"].shape == (2, 1, 16, 16, 16)
        largest = 0
        for segments in batch["segments"].numpy():
            ids = np.unique(segments[segments >= 0])
            np.testing.assert_array_equal(ids, np.arange(len(ids)))
            largest = max(largest, len(ids))
        assert count == largest


def test_crops_of_two_levels_hold_the_parents_of_their_supervoxels(cases: list[TrainingCase]) -> None:
    nested = [with_segments(case, SupervoxelConfig("slic", 200, per_coarse=8)) for case in cases]
    assert all(len(case.segments) == 2 for case in nested)
    batch, count = case_batches(nested, CONFIG, _net("v3"))(3)
    assert batch["parents"].shape == (2, count)
    for segments, parents in zip(batch["segments"], batch["parents"], strict=True):
        present = int(segments.max()) + 1
        assert (parents[present:] == -1).all()
        np.testing.assert_array_equal(np.unique(parents[:present]), np.arange(int(parents.max()) + 1))
        # coarse supervoxels are far fewer, and each is a union of fine ones: the id of a voxel's parent is unique
        assert int(parents.max()) + 1 < present
    net = create_net("voxresnet", reduction=8, head="v3nested")
    loss, _ = step_loss(net, batch, count)
    loss.backward()
    assert net.supervoxel_classifier.weight.grad.abs().sum() > 0


def test_another_configuration_is_refused(cases: list[TrainingCase], tmp_path: Path) -> None:
    train(_net(), cases, CONFIG, folder=tmp_path)
    with pytest.raises(ModelError, match=r"checkpoint\.pt is of a training with other options"):
        train(_net(), cases, replace(CONFIG, learning_rate=1e-3), folder=tmp_path)


def test_a_damaged_checkpoint_is_named(cases: list[TrainingCase], tmp_path: Path) -> None:
    train(_net(), cases, CONFIG, folder=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"checkpoint\.pt cannot be read"):
        train(_net(), cases, CONFIG, folder=tmp_path)


def test_a_checkpoint_with_code_is_not_executed(cases: list[TrainingCase], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"config": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        train(_net(), cases, CONFIG, folder=tmp_path)
    assert not (tmp_path / "executed").exists()


def test_diverging_is_reported(cases: list[TrainingCase], tmp_path: Path) -> None:
    net = _net()
    nn.init.constant_(next(net.parameters()), float("nan"))
    with pytest.raises(ModelError, match="the loss became nan at iteration"):
        train(net, cases, CONFIG, folder=tmp_path)


def test_wrong_arguments_are_named(cases: list[TrainingCase], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one case"):
        train(_net(), [], CONFIG, folder=tmp_path)
    with pytest.raises(UsageError, match=r"multiple of 2 voxels per axis, got \(15, 16, 16\)"):
        train(_net(), cases, replace(CONFIG, crop=(15, 16, 16)), folder=tmp_path)


@pytest.mark.parametrize("side", [16, 32])
def test_small_crops_train_in_float32_and_large_enough_ones_in_bf16(
    cases: list[TrainingCase], tmp_path: Path, side: int
) -> None:
    torch.manual_seed(0)
    net = create_net("segresnet")
    config = replace(CONFIG, iterations=2, crop=(side,) * 3, batch_size=1, amp="bf16")
    if side == 16:
        with pytest.raises(UsageError, match=r"is 2 at the network's coarsest scale.*take at least 32, or amp off"):
            train(net, cases, config, folder=tmp_path)
        config = replace(config, amp="off")
    train(net, cases, config, folder=tmp_path)
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def test_v1_trains_through_the_pooling(cases: list[TrainingCase], tmp_path: Path) -> None:
    net = _net("v1")
    assert isinstance(net, SupervoxelNet)
    before = _weights(net)
    train(net, cases, replace(CONFIG, iterations=2), folder=tmp_path)
    changed = [name for name, value in _weights(net).items() if not torch.equal(value, before[name])]
    assert any(name.startswith("base.head") for name in changed)
    assert any(name.startswith("base.stem") for name in changed)


@pytest.mark.parametrize("head", ["v1", "v2", "v3"])
def test_a_step_has_the_loss_and_gradient_of_the_voxels(cases: list[TrainingCase], head: str) -> None:
    net = _net(head).double()
    if head == "v3":
        nn.init.normal_(net.supervoxel_classifier.weight)
    batch, count = case_batches(cases, CONFIG, net)(0)
    batch["image"] = batch["image"].double()
    assert (batch["segments"] < 0).any()
    scores = net(batch["image"], batch["segments"], count)
    wanted = dice_cross_entropy(scores, batch["labels"])
    loss, dice = step_loss(net, batch, count, score=True)
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=0)
    assert dice == foreground_dice(scores.detach(), batch["labels"])
    parameters = list(net.parameters())
    for one, other in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)
    assert step_loss(net, batch, count)[1] is None


def test_scales_count_only_where_a_network_has_them(cases: list[TrainingCase]) -> None:
    net = _net()
    batch, _ = case_batches(cases, CONFIG, net)(0)
    scales = net.head.per_scale(net.features(batch["image"]))
    alone = sum(nn.functional.cross_entropy(scale, batch["labels"]) for scale in scales)
    plain, _ = step_loss(net, batch, None)
    weighted, _ = step_loss(net, batch, None, auxiliary=0.5)
    torch.testing.assert_close(weighted, plain + 0.5 * alone)


def test_bf16_is_a_choice() -> None:
    cpu = torch.device("cpu")
    assert use_bf16("bf16", cpu)
    assert not use_bf16("off", cpu)
