"""Supervoxel heads against plain loops over supervoxels, and where they start from."""

import copy

import numpy as np
import pytest
import torch

from voxpool.errors import UsageError
from voxpool.nets import VERSIONS, SupervoxelNet, VoxResNet, create_net
from voxpool.ops import Supervoxels

K = 7


def _inputs(seed: int = 0, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, side, side, side, generator=rng)
    segments = torch.randint(-1, K, (2, side, side, side), generator=rng, dtype=torch.int32)
    return x, segments


def _pooled_by_loop(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Max over every supervoxel, painted back; 0 outside: (C, *S) to (C, *S)."""
    painted = np.zeros_like(values)
    for k in range(K):
        inside = segments == k
        if inside.any():
            painted[:, inside] = values[:, inside].max(1, keepdims=True)
    return painted


@pytest.mark.parametrize("name", ["voxresnet", "segresnet"])
def test_v1_paints_the_largest_scores(name: str) -> None:
    torch.manual_seed(0)
    net = create_net(name, head="v1").eval()
    x, segments = _inputs(side=16)
    with torch.no_grad():
        scores, base = net(x, segments, K), net.base(x)
    for n in range(2):
        want = _pooled_by_loop(base[n].numpy(), segments[n].numpy())
        np.testing.assert_allclose(scores[n].numpy(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_v2_and_v3_classify_pooled_features(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).eval()
    torch.nn.init.normal_(net.supervoxel_classifier.weight)
    torch.nn.init.normal_(net.supervoxel_classifier.bias)
    base = copy.deepcopy(net.base)
    x, segments = _inputs()
    with torch.no_grad():
        scores = net(x, segments, K)
        features = base.features(x)
        joined = torch.cat(features, 1)
        voxel = base.head(features) if version == "v3" else torch.zeros_like(scores)
    weight = net.supervoxel_classifier.weight.detach().numpy()
    bias = net.supervoxel_classifier.bias.detach().numpy()
    for n in range(2):
        pooled = _pooled_by_loop(joined[n].numpy(), segments[n].numpy())
        branch = np.einsum("oc,cdhw->odhw", weight, pooled) + bias[:, None, None, None]
        branch[:, segments[n].numpy() < 0] = 0
        np.testing.assert_allclose(scores[n].numpy(), voxel[n].numpy() + branch, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_hard_heads_give_each_supervoxel_one_class(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).eval()
    x, segments = _inputs()
    labels = net(x, segments, K).argmax(1)
    for n in range(2):
        for k in range(K):
            assert len(labels[n][segments[n] == k].unique()) == 1


def test_v3_starts_as_its_base() -> None:
    torch.manual_seed(0)
    base = VoxResNet(reduction=8).eval()
    net = SupervoxelNet(copy.deepcopy(base), "v3").eval()
    x, segments = _inputs()
    torch.testing.assert_close(net(x, segments, K), base(x), rtol=0, atol=0)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_parameter_learns(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).train()
    x, segments = _inputs()
    if version == "v3":  # zero weights pass no gradient to the features through this branch
        torch.nn.init.normal_(net.supervoxel_classifier.weight)
    net(x, segments, K).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1)


@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
def test_pooling_can_be_chosen(reduce: str) -> None:
    torch.manual_seed(0)
    net = SupervoxelNet(VoxResNet(reduction=8), "v1", reduce=reduce).eval()
    x, segments = _inputs()
    with torch.no_grad():
        scores, base = net(x, segments, K), net.base(x)
    inside = segments[0] == 3
    want = getattr(base[0][:, inside], {"max": "amax", "mean": "mean", "sum": "sum"}[reduce])(1)
    torch.testing.assert_close(scores[0][:, inside][:, 0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_whole_network_compiles_without_a_break(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).eval()
    if version == "v3":
        torch.nn.init.normal_(net.supervoxel_classifier.weight)
    x, segments = _inputs()
    # the graph itself is the claim: aot_eager traces forward and backward without generating C++
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, segments, K), net(x, segments, K), rtol=1e-5, atol=1e-5)
    compiled(x, segments, K).sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad and p.ndim > 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_prepared_supervoxels_serve_as_well(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).eval()
    x, segments = _inputs()
    torch.testing.assert_close(net(x, Supervoxels.of(segments, K)), net(x, segments, K), rtol=0, atol=0)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_hard_heads_paint_the_scores_of_their_supervoxels(version: str) -> None:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=version).eval()
    x, segments = _inputs()
    scores, painted = net.segment_scores(x, segments, K), net(x, segments, K)
    assert scores.shape == (2, net.num_classes, K)
    for n in range(2):
        for k in range(K):
            inside = painted[n][:, segments[n] == k]
            torch.testing.assert_close(inside, scores[n, :, k : k + 1].expand_as(inside), rtol=0, atol=0)


def test_a_v3_head_has_no_scores_of_supervoxels_alone() -> None:
    x, segments = _inputs()
    with pytest.raises(UsageError, match="v3 head scores voxels"):
        create_net("voxresnet", reduction=8, head="v3").segment_scores(x, segments, K)


def _parents(fine: int = K, coarse: int = 3) -> torch.Tensor:
    return torch.arange(fine, dtype=torch.int32).remainder(coarse).repeat(2, 1)


def _zero_started(head: str) -> SupervoxelNet:
    torch.manual_seed(0)
    net = create_net("voxresnet", reduction=8, head=head).eval()
    assert isinstance(net, SupervoxelNet)
    return net


def test_v3stats_tells_supervoxels_by_maximum_mean_and_deviation() -> None:
    net = _zero_started("v3stats")
    x, segments = _inputs()
    with torch.no_grad():
        features = net.base.features(x)
        pooled = net.pool(features, segments, K)
        joined = torch.cat(features, 1)
        for k in range(K):
            inside = joined[0][:, segments[0] == k]
            want = torch.cat([inside.amax(1), inside.mean(1), inside.std(1, correction=0).clamp_min(1e-3)])
            torch.testing.assert_close(pooled[0, :, k], want, rtol=1e-4, atol=1e-4)


def test_v3nested_joins_what_the_coarse_supervoxel_holds() -> None:
    net = _zero_started("v3nested")
    x, segments = _inputs()
    parents = _parents()
    coarse = torch.where(segments >= 0, parents[0][segments.clamp_min(0).long()], -1)
    with torch.no_grad():
        features = net.base.features(x)
        pooled = net.pool(features, segments, K, parents)
        joined = torch.cat(features, 1)
        for k in range(K):
            fine = joined[1][:, segments[1] == k].amax(1)
            around = joined[1][:, coarse[1] == parents[1, k]].amax(1)
            torch.testing.assert_close(pooled[1, :, k], torch.cat([fine, around]), rtol=0, atol=0)
    with pytest.raises(UsageError, match="needs the coarse parent of every supervoxel: pass parents"):
        net(x, segments, K)


@pytest.mark.parametrize("head", ["v3stats", "v3nested"])
def test_richer_heads_start_as_their_base_and_learn(head: str) -> None:
    net = _zero_started(head)
    x, segments = _inputs()
    options = {"parents": _parents()} if head == "v3nested" else {}
    torch.testing.assert_close(net(x, segments, K, **options), net.base(x), rtol=0, atol=0)
    torch.nn.init.normal_(net.supervoxel_classifier.weight)
    net(x, segments, K, **options).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1)


def test_a_supervoxel_of_equal_features_has_finite_gradients() -> None:
    net = _zero_started("v3stats")
    features = torch.ones((1, 3, 2, 2, 2), requires_grad=True)
    net.pool([features], torch.zeros((1, 2, 2, 2), dtype=torch.int32), 1).sum().backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": "v1", "reduce": "moments"}, "v1 pools class scores, one number per class"),
        ({"version": "v1", "levels": 2}, "v1 pools class scores"),
        ({"version": "v3", "levels": 3}, "levels must be 1, or 2 with max pooling, got 3 with max"),
        ({"version": "v3", "levels": 2, "reduce": "mean"}, "got 2 with mean"),
    ],
)
def test_poolings_that_do_not_go_together_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SupervoxelNet(VoxResNet(reduction=8), **options)
