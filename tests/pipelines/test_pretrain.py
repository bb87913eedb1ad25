"""From label maps to a model of heads, and from there to a data set's own tissues."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from rich.console import Console

from tests.data.heads import make_structures
from voxpool.batches import guided_batches
from voxpool.data import Dataset
from voxpool.data.cache import TrainingCase
from voxpool.data.head_labels import CLASSES, STRUCTURES
from voxpool.engine import TrainConfig
from voxpool.errors import InputError, UsageError
from voxpool.inference import Segmenter
from voxpool.io import read_labels, read_volume
from voxpool.model_package import load_package
from voxpool.nets import GuidedVoxResNet, create_net
from voxpool.ops import compact_segments
from voxpool_pipelines.bench.heads import run_bench_heads
from voxpool_pipelines.config import parse_config
from voxpool_pipelines.crossval import crossval
from voxpool_pipelines.finetune import begin_from, merged_classes, tissue_labels
from voxpool_pipelines.prepare import open_dataset, prepare_folds
from voxpool_pipelines.pretrain import pretrain

# FreeSurfer's ids of the structures in the small head
IDS = {"air": 0, "skin and fat": 511, "bone": 515, "outer CSF": 24, "cortex": 3, "white matter": 2}
IDS |= {"lateral ventricle": 4, "brain stem": 16}
QUIET = Console(quiet=True)


def _table(values: dict[str, int]) -> np.ndarray:
    table = np.zeros(len(STRUCTURES), np.int16)
    for name, value in values.items():
        table[STRUCTURES.index(name)] = value
    return table


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    nibabel.save(nibabel.Nifti1Image(_table(IDS)[make_structures()], np.eye(4)), folder / "head.nii.gz")
    return folder


@pytest.fixture(scope="module")
def model(maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training")
    options = {"init": None, "context_iterations": 2, "detail_iterations": 1, "seed": 0, "device": "cpu"}
    package = pretrain(maps, out, **options, console=QUIET)
    first = (package / "model.safetensors").read_bytes()
    # what is done is not done again, and gives the same bytes
    assert (pretrain(maps, out, **options, console=QUIET) / "model.safetensors").read_bytes() == first
    return package


@pytest.fixture
def samples() -> Path:
    return Path(__file__).resolve().parents[2] / "sample_data" / "cohort"


def _open(samples: Path) -> Dataset:
    return open_dataset(
        samples, layout="folder", image=["*_t1.nii.gz"], labels="*_labels.nii.gz",
        label_names="0=BG,1=CSF,2=GM,3=WM", console=QUIET,
    )  # fmt: skip


def test_the_package_says_what_it_is(model: Path) -> None:
    net, info = load_package(model)
    assert (info.net, info.head, tuple(info.label_names.values())) == ("guided_voxresnet", "v3", CLASSES)
    assert info.training["data"] == ["head.nii.gz"]
    assert info.preprocess.keep_outside
    assert isinstance(net.base, GuidedVoxResNet)


def test_training_goes_on_from_other_weights(maps: Path, model: Path, tmp_path: Path) -> None:
    again = pretrain(
        maps, tmp_path, init=str(model), context_iterations=0, detail_iterations=1, seed=5, device="cpu", console=QUIET
    )
    assert load_package(again)[1].training["before"] == load_package(model)[1].training
    before, after = (load_package(place)[0].state_dict() for place in (model, again))
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("base.context"))
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("base.detail"))


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no label map"):
        pretrain(
            tmp_path, tmp_path, init=None, context_iterations=1, detail_iterations=1, seed=0, device="cpu",
            console=QUIET,
        )  # fmt: skip


def test_labels_of_a_data_set_may_be_in_any_order() -> None:
    names = {0: "BG", 1: "WM", 2: "csf", 3: "GM"}
    assert tissue_labels(names).tolist() == [0, 3, 1, 2]
    expected = {"background": 0, "ventricular CSF": 2, "extra-ventricular CSF": 3, "cortical GM": 3, "deep GM": 3}
    expected |= {"WM": 1, "cerebellar GM": 3, "cerebellar WM": 1, "brain stem": 1}
    assert dict(zip(CLASSES, merged_classes(names, "ventricles-only"), strict=True)) == expected
    assert merged_classes(names, "all-csf")[CLASSES.index("extra-ventricular CSF")] == 2
    with pytest.raises(UsageError, match="labels are BG, tumour"):
        tissue_labels({0: "BG", 1: "tumour"})
    with pytest.raises(UsageError, match="--convention must be one of"):
        merged_classes(names, "all")


def test_fine_tuning_begins_with_the_models_weights(samples: Path) -> None:
    net = begin_from("bundled", _open(samples), "ventricles-only")
    learnt = load_package("bundled")[0].base.state_dict()
    assert net.num_classes == 4
    assert all(torch.equal(value, learnt[key]) for key, value in net.state_dict().items())


def test_crossval_fine_tunes_beside_a_net_from_scratch(samples: Path, tmp_path: Path) -> None:
    config = parse_config(
        folds=6, only_folds=(0,), reductions=(8,), heads=("base",), iterations=2, crop=64, init="bundled",
    )  # fmt: skip
    dataset = _open(samples)
    folds = prepare_folds(dataset, folds=6, seed=0, group_by_subject=True, given=None, out=tmp_path)
    run = crossval(dataset, folds, config, out=tmp_path, device="cpu", console=QUIET)
    dice = {}
    for place in sorted((run / "variants").iterdir()):
        result = json.loads((place / "fold0" / "result.json").read_text(encoding="utf-8"))
        (case,) = result["cases"]
        dice[place.name] = np.mean([score["dice"] for score in case["classes"].values()])
    assert list(dice) == ["guided_voxresnet-base", "voxresnet-r8-base"]
    # two steps teach a new network nothing; the other one knew it before
    assert dice["guided_voxresnet-base"] > 0.6
    assert dice["voxresnet-r8-base"] < 0.4
    place = run / "variants" / "guided_voxresnet-base" / "fold0"
    (source,) = (found for found in dataset.cases if found.id == case["case_id"])
    again = Segmenter.load(place / "model", device="cpu").segment(read_volume(source.images[0]))
    np.testing.assert_array_equal(again.labels, read_labels(place / "predictions" / f"{source.id}.nii.gz").array)


def test_another_voxel_size_is_refused(samples: Path, tmp_path: Path) -> None:
    config = parse_config(iterations=2, spacing="native", init="bundled", reductions=(8,))
    dataset = _open(samples)
    with pytest.raises(UsageError, match="works at 1 mm"):
        crossval(dataset, [], config, out=tmp_path, device="cpu", console=QUIET)


def test_the_bench_scores_what_the_segmenter_finds(samples: Path, tmp_path: Path) -> None:
    found = run_bench_heads(
        _open(samples), model="bundled", convention="ventricles-only", cases=1, degraded=False, turned=1,
        device="cpu", json=tmp_path / "heads.json", console=QUIET,
    )  # fmt: skip
    (row,) = found["rows"]
    assert row["kind"] == "as it is"
    assert row["mean"] == pytest.approx(np.mean(list(row["dice"].values())))
    assert row["dice"]["WM"] > 0.8
    assert found["orientations"] == {"tried": 1, "same": 1}
    assert json.loads((tmp_path / "heads.json").read_text(encoding="utf-8"))["rows"] == found["rows"]


def test_guided_crops_are_parts_of_the_cases() -> None:
    torch.manual_seed(0)
    net = create_net("guided_voxresnet", 1, 3, reduction=8, context_reduction=8, context_stages=2)
    rng = np.random.default_rng(0)
    image = rng.random((1, 32, 48, 40), np.float32)
    labels = (image[0] * 3).astype(np.uint8)
    case = TrainingCase("a", image, labels, labels >= 0, (1.0, 1.0, 1.0), Path(), segments=labels.astype(np.int32))
    batch, count = guided_batches([case], TrainConfig(1, crop=(16, 64, 24), batch_size=3), net)(0)
    assert batch["image"].shape == (3, 7, 16, 48, 24)
    # what the image says and what the labels say still lie on each other
    torch.testing.assert_close((batch["image"][:, 0] * 3).long(), batch["labels"])
    assert count == 3
    for ids, own in zip(batch["segments"], batch["labels"], strict=True):
        assert torch.equal(ids, compact_segments(own.int())[0])
    with pytest.raises(UsageError, match="multiple of 8"):
        guided_batches([case], TrainConfig(1, crop=(12, 16, 16)), net)
