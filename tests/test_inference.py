"""Segmentation of volumes: tiles equal the whole, every grid comes back, refusals."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from voxpool.data.likeness import unlike_brain
from voxpool.data.native import to_native
from voxpool.data.phantom import phantom
from voxpool.data.transforms import (
    PreprocessConfig,
    SupervoxelConfig,
    make_segments,
    prepare,
    preprocessing,
    to_meta_tensor,
)
from voxpool.engine import to_device
from voxpool.errors import Cancelled, InputError, ModelError, ResourceError, UsageError
from voxpool.inference import Segmenter, select_device
from voxpool.io import Geometry, Volume, read_volume, write_volume
from voxpool.model_package import ModelInfo, save_package, weights_sha256
from voxpool.nets import HEADS, SupervoxelNet, VoxResNet, create_net
from voxpool.supervoxels import nest_segments, slic
from voxpool.tiles import Decided, predict

CPU = torch.device("cpu")
NAMES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}


def _net(head: str, **options: int) -> nn.Module:
    """A network with random weights that uses all its parts, and batch statistics of its own."""
    torch.manual_seed(0)
    net = create_net("voxresnet", head=head, **options)
    if isinstance(net, SupervoxelNet) and net.supervoxel_classifier is not None:
        nn.init.normal_(net.supervoxel_classifier.weight)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(1, 1, 16, 16, 16)
            segments, parents = torch.zeros(1, 16, 16, 16, dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int32)
            net(*((x, segments, 1, parents) if head != "base" else (x,)))
    return to_device(net, CPU).eval()


def _info(head: str, spacing: tuple[float, float, float] | None = None) -> ModelInfo:
    return ModelInfo(
        net="voxresnet",
        net_options={"reduction": 8},
        head=head,
        channels=("T1",),
        label_names=NAMES,
        convention="test",
        preprocess=PreprocessConfig(spacing=spacing),
        supervoxels=None if head == "base" else SupervoxelConfig("slic", 150),
    )


def _image(shape: tuple[int, ...] = (40, 32, 48)) -> tuple[torch.Tensor, np.ndarray]:
    image, labels = phantom(shape, seed=0)
    return torch.from_numpy(image / image.std())[None], slic(image, 150, mask=labels > 0)


@pytest.mark.parametrize("tile", [8, 16, 24])
@pytest.mark.parametrize("head", ["base", *HEADS])
def test_tiles_equal_the_whole(head: str, tile: int) -> None:
    net = _net(head, reduction=8)
    image, segments = _image()
    if head == "v3nested":
        segments = np.stack([segments, nest_segments(segments, image, [30]).paint(0, segments)])
    whole = predict(net, image, segments, device=CPU, bf16=False, tile=48)
    tiled = predict(net, image, segments, device=CPU, bf16=False, tile=tile)
    np.testing.assert_array_equal(tiled, whole)
    assert len(np.unique(whole)) > 1


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_sums_and_counts_join_over_tiles(reduce: str) -> None:
    net = _net("v3", reduction=8)
    net.reduce = reduce
    image, segments = _image()
    whole = predict(net, image, segments, device=CPU, bf16=False, tile=48)
    np.testing.assert_array_equal(predict(net, image, segments, device=CPU, bf16=False, tile=16), whole)


def test_a_deeper_net_in_tiles() -> None:
    net = _net("v3", reduction=8, stages=3, res_per_stage=1)
    image, segments = _image()
    whole = predict(net, image, segments, device=CPU, bf16=False, tile=48)
    np.testing.assert_array_equal(predict(net, image, segments, device=CPU, bf16=False, tile=8), whole)


@pytest.mark.parametrize("head", ["base", "v1", "v2", "v3"])
def test_the_whole_is_the_networks_forward(head: str) -> None:
    net = _net(head, reduction=8)
    image, segments = _image()
    with torch.no_grad():
        ids = torch.from_numpy(segments)[None]
        args = (image[None],) if head == "base" else (image[None], ids, int(segments.max()) + 1)
        want = net(*args).argmax(1)[0].numpy()
    np.testing.assert_array_equal(predict(net, image, segments, device=CPU, bf16=False), want)


def test_too_narrow_margins_would_be_noticed() -> None:
    net = _net("base", reduction=8)
    image, segments = _image()
    whole = predict(net, image, segments, device=CPU, bf16=False, tile=48)
    net.receptive_radius = 0
    assert np.any(predict(net, image, segments, device=CPU, bf16=False, tile=8) != whole)


def _volume(axcodes: str, tilt: float) -> tuple[Volume, np.ndarray]:
    """A phantom stored in an orientation, and its RAS array."""
    image, _ = phantom((34, 30, 26), seed=2, spacing=(2.0, 2.0, 2.0))
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    ras = Geometry(image.shape, turn @ np.diag([2.0, 2.0, 2.0, 1.0]))
    axes = [next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair) for code in axcodes]
    flips = [code in "LPI" for code in axcodes]
    stored = np.flip(image.transpose(axes), [i for i, flip in enumerate(flips) if flip])
    change = np.eye(4)  # stored index to RAS index
    for stored_axis, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        change[axis, :3] = 0
        change[axis, stored_axis] = -1 if flip else 1
        change[axis, 3] = image.shape[axis] - 1 if flip else 0
    geometry = Geometry(stored.shape, ras.affine @ change)
    assert geometry.orientation == axcodes
    return Volume(np.ascontiguousarray(stored), geometry), image


AXCODES = [
    a + b + c
    for first, second, third in (
        ("RL", "AP", "SI"), ("RL", "SI", "AP"), ("AP", "RL", "SI"),
        ("AP", "SI", "RL"), ("SI", "RL", "AP"), ("SI", "AP", "RL"),
    )
    for a in first
    for b in second
    for c in third
]  # fmt: skip


@pytest.fixture(scope="module")
def segmenters() -> dict[str, Segmenter]:
    return {head: Segmenter(_net(head, reduction=8), _info(head), device="cpu", amp="off") for head in ("base", "v3")}


@pytest.mark.parametrize("tilt", [0.0, 0.2])
@pytest.mark.parametrize("axcodes", AXCODES)
def test_every_orientation_gives_the_same_anatomy(
    axcodes: str, tilt: float, segmenters: dict[str, Segmenter], tmp_path: Path
) -> None:
    head = "base" if tilt else "v3"
    reference, _ = _volume("RAS", tilt)
    volume, _ = _volume(axcodes, tilt)
    want = segmenters[head].segment(reference).labels
    found = segmenters[head].segment(volume)
    assert found.labels.shape == volume.array.shape
    np.testing.assert_array_equal(volume.geometry.to_ras(found.labels), want)
    if found.segments is not None:
        np.testing.assert_array_equal(found.segments >= 0, volume.array != 0)
    # and a file of it lies where the image lies
    write_volume(tmp_path / "labels.nii.gz", found.labels, like=volume)
    written = read_volume(tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(written.geometry.affine, volume.geometry.affine, atol=1e-4)


def test_volumes_are_voxels_times_their_size(segmenters: dict[str, Segmenter]) -> None:
    volume, _ = _volume("LPS", 0.0)
    found = segmenters["base"].segment(volume)
    for label, name in list(NAMES.items())[1:]:
        assert found.volumes_ml[name] == pytest.approx(np.sum(found.labels == label) * 0.008)
    assert "BG" not in found.volumes_ml
    assert found.num_segments is None
    assert found.segments is None


def test_another_working_spacing_keeps_the_grid() -> None:
    segmenter = Segmenter(_net("v3", reduction=8), _info("v3", (1.5, 1.5, 1.5)), device="cpu", amp="off")
    volume, _ = _volume("PIR", 0.1)
    found = segmenter.segment(volume)
    assert found.labels.shape == volume.array.shape
    assert np.all(found.labels[volume.array == 0].mean() <= found.labels[volume.array != 0].mean() + 1)
    assert found.num_segments == pytest.approx(150, rel=0.06)


def test_progress_ends_at_one_and_cancelling_stops(segmenters: dict[str, Segmenter]) -> None:
    volume, _ = _volume("RAS", 0.0)
    seen: list[tuple[str, float]] = []
    segmenters["v3"].segment(volume, tile=8, progress=lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["prepare", "supervoxels", "network", "labels"]
    asked = iter(range(100))
    with pytest.raises(Cancelled, match="stopped after 2 of"):
        segmenters["v3"].segment(volume, tile=8, cancelled=lambda: next(asked) == 2)


def test_a_package_segments_as_the_network_does(tmp_path: Path) -> None:
    volume, _ = _volume("LAS", 0.0)
    net = _net("v3", reduction=8)
    save_package(copy.deepcopy(net), _info("v3"), tmp_path / "model")
    want = Segmenter(net, _info("v3"), device="cpu", amp="off").segment(volume)
    found = Segmenter.load(tmp_path / "model", device="cpu", amp="off").segment(volume)
    np.testing.assert_array_equal(found.labels, want.labels)


def test_bf16_agrees_with_float32() -> None:
    volume, _ = _volume("RAS", 0.0)
    net = _net("v3", reduction=8)
    exact = Segmenter(net, _info("v3"), device="cpu", amp="off").segment(volume).labels
    fast = Segmenter(net, _info("v3"), device="cpu", amp="bf16").segment(volume).labels
    assert np.mean(exact == fast) > 0.97


def test_what_does_not_fit_the_model_is_named(segmenters: dict[str, Segmenter]) -> None:
    volume, _ = _volume("RAS", 0.0)
    with pytest.raises(InputError, match=r"the model needs 1 image\(s\) \(T1\), got 2"):
        segmenters["base"].segment([volume, volume])
    flat = Volume(np.zeros_like(volume.array), volume.geometry)
    with pytest.raises(InputError, match="the image is constant"):
        segmenters["base"].segment(flat)
    net = _net("v3", reduction=8)
    with pytest.raises(UsageError, match="needs segments, got none"):
        predict(net, _image()[0], None, device=CPU, bf16=False)


def test_devices_are_checked() -> None:
    assert select_device("cpu") == CPU
    with pytest.raises(UsageError, match="unknown device 'quantum'"):
        select_device("quantum")
    if not torch.cuda.is_available():
        assert select_device("auto") == CPU
        with pytest.raises(ResourceError, match="finds no CUDA GPU; choose the device cpu"):
            select_device("cuda")


def test_tiles_are_chosen_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    net = VoxResNet(reduction=8).eval()
    image = torch.randn(1, 48, 48, 48)
    whole = predict(net, image, None, device=CPU, bf16=False, tile=48)
    available = psutil.virtual_memory()
    for free in (60_000_000, 20_000_000):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: available._replace(available=free))
        np.testing.assert_array_equal(predict(net, image, None, device=CPU, bf16=False), whole)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available._replace(available=100_000))
    with pytest.raises(ResourceError, match="not enough memory: a tile of"):
        predict(net, image, None, device=CPU, bf16=False)


def _probabilities(net: nn.Module, image: torch.Tensor, segments: np.ndarray) -> torch.Tensor:
    ids = torch.from_numpy(segments)[None]
    with torch.no_grad():
        scores = net(image[None], ids, int(segments.max()) + 1) if isinstance(net, SupervoxelNet) else net(image[None])
    return scores[0].softmax(0)


@pytest.mark.parametrize("tile", [16, 48])
@pytest.mark.parametrize("head", ["base", "v1", "v3"])
def test_confidence_is_the_probability_of_the_label(head: str, tile: int) -> None:
    net = _net(head, reduction=8)
    image, segments = _image()
    decided = Decided(np.zeros(segments.shape, np.uint8), np.zeros(segments.shape, np.uint8))
    labels = predict(net, image, segments, device=CPU, bf16=False, tile=tile, into=decided)
    probabilities = _probabilities(net, image, segments)
    np.testing.assert_allclose(decided.confidence / 255, probabilities.amax(0).numpy(), atol=0.004)
    assert labels is decided.labels
    assert (labels == probabilities.argmax(0).numpy()).mean() > 0.999


@pytest.mark.parametrize("head", ["base", "v3"])
def test_merged_classes_are_chosen_by_their_joint_probability(head: str) -> None:
    net = _net(head, reduction=8)
    image, segments = _image()
    decided = Decided(np.zeros(segments.shape, np.uint8), merged=(0, 1, 1, 0))
    labels = predict(net, image, segments, device=CPU, bf16=False, tile=48, into=decided)
    fine = _probabilities(net, image, segments)
    joint = torch.stack([fine[0] + fine[3], fine[1] + fine[2]])
    clear = (joint[0] - joint[1]).abs().numpy() > 1e-4
    np.testing.assert_array_equal(labels[clear], joint.argmax(0).numpy()[clear])
    # not merely merged labels
    assert np.any(labels != np.array([0, 1, 1, 0])[fine.argmax(0).numpy()])


def test_uncertainty_of_supervoxels_is_what_their_labels_lack() -> None:
    image, _ = phantom((40, 32, 48), seed=0)
    volume = Volume(image, Geometry(image.shape, np.eye(4)))
    found = Segmenter(_net("v1", reduction=8), _info("v1"), device="cpu", amp="off").segment(volume)
    assert found.uncertainty is not None
    assert found.uncertainty.shape == (found.num_segments,)
    # V1 gives every supervoxel one class and so one probability: no less than chance, and that of its class's mean
    assert found.uncertainty.min() >= 0
    assert found.uncertainty.max() <= 0.76
    sizes = np.bincount(found.segments[found.segments >= 0], minlength=found.num_segments)
    for label, name in NAMES.items():
        if not label or name not in found.confidence:
            continue
        mine = np.unique(found.segments[(found.labels == label) & (found.segments >= 0)])
        expected = 1 - np.average(found.uncertainty[mine], weights=sizes[mine])
        assert found.confidence[name] == pytest.approx(expected, abs=0.02)
    assert found.quality == pytest.approx(np.mean(list(found.confidence.values())))


def test_conventions_are_for_models_of_heads() -> None:
    image, _ = phantom((40, 32, 48), seed=0)
    volume = Volume(image, Geometry(image.shape, np.eye(4)))
    segmenter = Segmenter(_net("base", reduction=8), _info("base"), device="cpu", amp="off")
    with pytest.raises(UsageError, match="convention must be one of"):
        segmenter.segment(volume, convention="all")
    with pytest.raises(UsageError, match="BG, CSF, GM, WM, which no convention merges"):
        segmenter.segment(volume, convention="all-csf")


def test_small_brains_empty_places_and_doubtful_labels_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(500, 50, (40, 40, 40)).astype(np.float32)
    array[20:] = 0  # half of the picture is air
    volume = Volume(array, Geometry(array.shape, np.diag([4.0, 4, 4, 1])))
    head = np.zeros(array.shape, np.uint8)
    head[2:18] = 1
    sound = {"GM": 700.0, "WM": 500.0}, {"GM": 0.8, "WM": 0.7}
    assert unlike_brain(volume, head, *sound) == ()
    (small,) = unlike_brain(volume, head, {"GM": 300.0, "WM": 200.0}, sound[1])
    assert "measures 500 mL" in small
    (unsure,) = unlike_brain(volume, head, sound[0], {"GM": 0.5, "WM": 0.4})
    assert "expects 45% of its labels" in unsure
    head[10:30] = 2  # 18 of 28 planes show something
    (empty,) = unlike_brain(volume, head, *sound)
    assert "36% of the labels lie where the image shows nothing" in empty
    assert len(unlike_brain(volume, np.zeros_like(head), {}, {})) == 2


def _run_of_folds(folder: Path, head: str, count: int = 3) -> list[nn.Module]:
    """Packages as crossval leaves them, each fold with other weights."""
    nets = []
    for fold in range(count):
        torch.manual_seed(fold)
        nets.append(create_net("voxresnet", reduction=8, head=head))
        save_package(nets[-1], _info(head), folder / f"fold{fold}" / "model")
    return [net.eval() for net in nets]


@pytest.mark.parametrize("head", ["base", "v3"])
def test_folds_are_asked_together_by_the_mean_of_their_probabilities(head: str, tmp_path: Path) -> None:
    image, _ = phantom((40, 32, 48), seed=0)
    volume = Volume(image, Geometry(image.shape, np.eye(4)))
    nets = _run_of_folds(tmp_path / "v", head)
    together = Segmenter.load(tmp_path / "v", device="cpu", amp="off")
    found = together.segment(volume, tile=16)
    assert len(together.nets) == 3

    # what each of them says, asked alone; volumes in memory keep their grid, so the masks are the same
    seen: list[torch.Tensor] = []

    class Recorder(Decided):
        def add(self, scores: torch.Tensor, place: tuple[slice, ...]) -> None:
            seen[-1][(slice(None), *place)] = scores.softmax(0)

    transform = preprocessing(PreprocessConfig(), stride=nets[0].stride, labels=False)
    data = prepare(transform, {"image": to_meta_tensor(image[None], np.eye(4))})
    maps, mask = data["image"].as_tensor(), data["mask"][0].numpy()
    segments = None if head == "base" else make_segments(maps.numpy(), mask, _info(head).supervoxels, spacing=(1, 1, 1))
    for net in nets:
        seen.append(torch.zeros(4, *maps.shape[1:]))
        blank = np.zeros(maps.shape[1:], np.uint8)
        predict(net, maps, segments, device=CPU, bf16=False, into=Recorder(blank))
    mean = torch.stack(seen).mean(0)
    want = to_native(mean.argmax(0).to(torch.uint8).numpy(), np.asarray(data["image"].affine), volume.geometry)
    np.testing.assert_array_equal(found.labels, want)
    alone = Segmenter(nets[0], _info(head), device="cpu", amp="off").segment(volume)
    assert np.any(found.labels != alone.labels)
    assert found.quality < alone.quality + 0.2


def test_folds_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    _run_of_folds(tmp_path / "v", "base", 2)
    assert weights_sha256(tmp_path / "v") != weights_sha256(tmp_path / "v" / "fold0" / "model")
    other = create_net("voxresnet", reduction=8, head="v3")
    save_package(other, _info("v3"), tmp_path / "v" / "fold2" / "model")
    with pytest.raises(ModelError, match=r"fold2 of v is of another network.*than fold0"):
        Segmenter.load(tmp_path / "v")
    with pytest.raises(ModelError, match=r"is no model package"):
        Segmenter.load(tmp_path / "none")


class Hungry(VoxResNet):
    """A network for which everything above a size is too large, as torch would say it."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__(1, 4, reduction=8)
        self.most, self.error, self.asked = most, error, []

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.asked.append(max(x.shape[2:]))
        if max(x.shape[2:]) > self.most:
            raise self.error
        return super().features(x)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried ..."),
        MemoryError(),
    ],
)
def test_smaller_tiles_are_taken_when_memory_runs_out(error: Exception) -> None:
    image, _ = phantom((96, 40, 40), seed=0)
    volume = Volume(image, Geometry(image.shape, np.eye(4)))
    torch.manual_seed(0)
    net = Hungry(10**6, error)
    want = Segmenter(net, _info("base"), device="cpu", amp="off").segment(volume)
    assert want.notices == ()
    net.most = 70
    found = Segmenter(net, _info("base"), device="cpu", amp="off").segment(volume)
    np.testing.assert_array_equal(found.labels, want.labels)
    (notice,) = found.notices
    assert "memory ran out, so the volume was cut into tiles of" in notice
    assert max(net.asked) > 70 >= net.asked[-1]
    net.most = 4
    with pytest.raises(ResourceError, match=r"not enough memory, even for small tiles.*E604"):
        Segmenter(net, _info("base"), device="cpu", amp="off").segment(volume)


def test_another_error_is_no_lack_of_memory() -> None:
    image, _ = phantom((40, 40, 40), seed=0)
    net = Hungry(4, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        Segmenter(net, _info("base"), device="cpu", amp="off").segment(Volume(image, Geometry(image.shape, np.eye(4))))
    assert len(net.asked) == 1
