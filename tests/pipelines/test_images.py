"""Networks for images from the command line: train, go on, score, report."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.pipelines.conftest import Run
from voxpool.crf import CRFSettings, dense_crf
from voxpool.data2d import find_images
from voxpool.data2d.transforms import to_tensor
from voxpool.errors import Cancelled, InputError, ModelError, UsageError
from voxpool.inference2d import label_image
from voxpool.io.image import read_image, read_label_image
from voxpool.metrics2d import confusion_matrix, score_matrix
from voxpool.model_package import load_package, load_planar_package
from voxpool_pipelines.images.config import parse_images_config
from voxpool_pipelines.images.evaluate import evaluate_model
from voxpool_pipelines.images.report import write_images_report
from voxpool_pipelines.images.train import train_images

OPTIONS = {"nets": ("fast_scnn",), "iterations": 12, "batch_size": 2, "size": (48, 64), "n_superpixels": 60}


def draw_pair(rng):
    """A bright disc on a dark ground; the frame is void."""
    rows, columns = np.mgrid[:60, :80]
    centre, radius = rng.uniform((20, 25), (40, 55)), rng.uniform(8, 18)
    disc = np.hypot(rows - centre[0], columns - centre[1]) < radius
    image = np.where(disc, 200, 50)[..., None] + rng.normal(0, 10, (60, 80, 3))
    labels = disc.astype(np.uint8)
    labels[0] = 255
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            image, labels = draw_pair(rng)
            Image.fromarray(image).save(root / split / "images" / f"{split}{number}.png")
            Image.fromarray(labels).save(root / split / "labels" / f"{split}{number}.png")
    (root / "classes.txt").write_text("ground\ndisc\n")
    return root


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train_images(find_images(data), parse_images_config(**OPTIONS), out=out, console=Console(quiet=True))
    return out


def result(finished: Path, variant: str) -> dict:
    return json.loads((finished / "variants" / variant / "result.json").read_text(encoding="utf-8"))


def test_the_scores_are_those_of_the_label_images(finished: Path, data: Path) -> None:
    for variant in ("fast_scnn-base", "fast_scnn-superpixels"):
        found = result(finished, variant)
        matrix = np.zeros((2, 2), int)
        for row in found["images"]:
            truth = read_label_image(data / "val" / "labels" / f"{row['id']}.png")
            labels = read_label_image(finished / "variants" / variant / "labels" / f"{row['id']}.png")
            matrix += confusion_matrix(truth, labels, 2, ignore=255)
        assert found["matrix"] == matrix.tolist()
        assert found["mean_iou"] == pytest.approx(score_matrix(matrix).mean_iou)
        assert found["classes"]["disc"]["iou"] == pytest.approx(score_matrix(matrix).iou[1])
        assert found["iterations"] == 12


def test_the_package_gives_the_labels_again(finished: Path, data: Path) -> None:
    for head in ("base", "superpixels"):
        place = finished / "variants" / f"fast_scnn-{head}"
        net, info = load_planar_package(place / "model")
        assert (info.head, info.label_names) == (head, ("ground", "disc"))
        image = read_image(data / "val" / "images" / "val0.png", info.size)
        found = label_image(net, info, image, size=(60, 80))
        assert np.array_equal(found.labels, read_label_image(place / "labels" / "val0.png"))
        assert (found.segments is None) == (head == "base")
    net, info = load_planar_package(finished / "variants" / "fast_scnn-base" / "model")
    settings = CRFSettings(position_sigma=5, iterations=2)
    with torch.inference_mode():
        colours = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = dense_crf(net(to_tensor(image)[None]), colours, settings).argmax(1)[0]
    assert np.array_equal(label_image(net, info, image, crf=settings).labels, expected)
    with pytest.raises(ModelError, match="is a model for images"):
        load_package(finished / "variants" / "fast_scnn-base" / "model")


def test_an_interrupted_training_goes_on_to_the_same_weights(finished: Path, data: Path, tmp_path: Path) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6

    config, dataset = parse_images_config(**OPTIONS), find_images(data)
    out = tmp_path / "again"
    with pytest.raises(Cancelled, match="stopped after 5 of 12 iterations"):
        train_images(dataset, config, out=out, console=Console(quiet=True), cancelled=cancelled)
    with pytest.raises(InputError, match="no finished network"):
        write_images_report(out)
    with pytest.raises(UsageError, match="--n-superpixels 60"):
        train_images(dataset, parse_images_config(**OPTIONS | {"n_superpixels": 9}), out=out)
    train_images(dataset, config, out=out, console=Console(quiet=True))
    for variant in ("fast_scnn-base", "fast_scnn-superpixels"):
        weights = [folder / "variants" / variant / "model" / "model.safetensors" for folder in (finished, out)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert not (out / "variants" / variant / "training").exists()


def test_the_report_compares_the_two(finished: Path) -> None:
    html = write_images_report(finished).read_text(encoding="utf-8")
    base, other = result(finished, "fast_scnn-base"), result(finished, "fast_scnn-superpixels")
    markdown = (finished / "report.md").read_text(encoding="utf-8")
    row = [100 * each["classes"]["disc"]["iou"] for each in (base, other)]
    assert f"| disc | {row[0]:.1f} | {row[1]:.1f} |" in markdown
    change = round(100 * (other["mean_iou"] - base["mean_iou"]), 1) + 0.0
    assert f"superpixels change the mean IoU by {change:+.1f} points" in markdown
    for text in ("<h1>discs", "IoU per class", "data:image/png;base64", "fast_scnn-superpixels"):
        assert text in html
    assert "not finished" not in html
    with (finished / "images.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[0]["mean_iou"]) == pytest.approx(base["images"][0]["mean_iou"], abs=1e-6)


def test_a_model_is_scored_on_a_split(finished: Path, data: Path, tmp_path: Path) -> None:
    model = finished / "variants" / "fast_scnn-base" / "model"
    found = evaluate_model(model, find_images(data), split="val", out=tmp_path, console=Console(quiet=True))
    assert found["matrix"] == result(finished, "fast_scnn-base")["matrix"]
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["split"] == "val"
    assert len(list((tmp_path / "labels").glob("*.png"))) == 3
    smooth = evaluate_model(model, find_images(data), split="val", out=tmp_path, crf=True, console=Console(quiet=True))
    assert np.sum(smooth["matrix"]) == np.sum(found["matrix"])
    with pytest.raises(InputError, match="no images for test"):
        evaluate_model(model, find_images(data), split="test", out=tmp_path, console=Console(quiet=True))
    other = find_images(data, class_names=("ground", "square"))
    with pytest.raises(InputError, match="has the classes ground, square, the model ground, disc"):
        evaluate_model(model, other, split="val", out=tmp_path, console=Console(quiet=True))


def test_cityscapes_are_scored_as_its_own_scripts_do(tmp_path: Path, finished: Path) -> None:
    for split in ("train", "val"):
        places = tmp_path / "leftImg8bit" / split / "x", tmp_path / "gtFine" / split / "x"
        for place in places:
            place.mkdir(parents=True)
        for number in range(2):
            stem = f"x_{split}{number}"
            labels = np.full((48, 64), 7, np.uint8)
            labels[:, 40:] = 26
            instances = np.where(labels == 26, 26001, 7).astype(np.uint16)
            Image.fromarray(np.where(labels[..., None] == 26, 220, 30).repeat(3, 2).astype(np.uint8)).save(
                places[0] / f"{stem}_leftImg8bit.png"
            )
            Image.fromarray(labels).save(places[1] / f"{stem}_gtFine_labelIds.png")
            Image.fromarray(instances).save(places[1] / f"{stem}_gtFine_instanceIds.png")
    out = tmp_path / "run"
    config = parse_images_config(**OPTIONS | {"heads": ("base",), "iterations": 2, "size": None})
    train_images(find_images(tmp_path), config, out=out, console=Console(quiet=True))
    found = result(out, "fast_scnn-base")
    assert found["cityscapes"]["class_iou"]["road"] == pytest.approx(found["classes"]["road"]["iou"])
    assert set(found["cityscapes"]["category_iiou"]) == {"human", "vehicle"}
    assert "ENet + superpixels" in write_images_report(out).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": None}, "either --iterations or --epochs"),
        ({"nets": ("lenet",)}, "unknown network 'lenet'"),
        ({"size": (8, 64)}, "--size must be at least 32"),
        ({"scale": (2.0, 1.0)}, "--scale takes the smallest"),
        ({"batch_size": 1}, "--batch-size"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_images_config(**OPTIONS | options)


def test_an_encoder_comes_from_a_file_and_code_in_it_is_refused(data: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    options = OPTIONS | {"heads": ("base",), "nets": ("swiftnet_rn18",), "encoder": str(tmp_path / "evil.pth")}
    with pytest.raises(InputError, match="no weights that can be read safely"):
        train_images(find_images(data), parse_images_config(**options), out=tmp_path / "a", console=Console(quiet=True))
    (tmp_path / "half.safetensors").write_bytes(b"cut off")
    broken = parse_images_config(**options | {"encoder": str(tmp_path / "half.safetensors")})
    with pytest.raises(InputError, match=r"half\.safetensors holds no weights"):
        train_images(find_images(data), broken, out=tmp_path / "c", console=Console(quiet=True))
    options["nets"] = ("enet",)
    with pytest.raises(UsageError, match="enet has no encoder"):
        train_images(find_images(data), parse_images_config(**options), out=tmp_path / "b", console=Console(quiet=True))


def test_the_commands(data: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    options = ("--nets", "fast_scnn", "--heads", "base", "--size", "48", "64", "--iterations", 2, "--batch-size", 2)
    command = [sys.executable, "-m", "voxpool_pipelines", "train2d", data, "--out", out, *map(str, options)]
    assert "report:" in subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    model = out / "variants" / "fast_scnn-base" / "model"
    for words, code, *arguments in (
        ("report:", 0, "report", out),
        ("IoU", 0, "evaluate2d", model, data, "--out", tmp_path / "scores"),
        ("no folder", 3, "train2d", tmp_path / "none", "--out", out, "--epochs", 1),
        ("--size takes height and width", 2, "train2d", data, "--out", out, "--size", 48),
    ):
        found, said = run(*arguments)
        assert found == code
        assert words in said
