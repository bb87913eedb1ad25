"""Models to choose: the bundled one, imported files, folders of runs; and what a run will take."""

import shutil
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_voxpool.display import layer_of_volume
from napari_voxpool.models import BUNDLED, describe_model, import_model, list_models
from tests.napari.conftest import make_package
from tests.napari.helpers import LEFT, WAIT, choose
from voxpool.data.phantom import phantom
from voxpool.errors import ModelError, UsageError
from voxpool.io import Geometry, Volume
from voxpool.model_package import weights_sha256


def zipped(package, path):
    with zipfile.ZipFile(path, "w") as out:
        for each in Path(package).iterdir():
            out.write(each, each.name)
    return path


def test_an_imported_file_stays_and_says_what_it_is(package, tmp_path):
    assert list_models() == [BUNDLED]
    model = import_model(zipped(package, tmp_path / "mine.zip"))
    assert list_models() == [BUNDLED, model]
    assert model.title == "mine"
    facts = describe_model(model.path)
    assert "T1 → CSF, GM, WM" in facts
    assert f"SHA-256 {weights_sha256(package)[:16]}" in facts
    with pytest.raises(UsageError, match="mine is there already"):
        import_model(tmp_path / "mine.zip")


def test_a_damaged_file_is_not_listed(package, tmp_path):
    broken = shutil.copytree(package, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-1] + b"\xff")
    with pytest.raises(ModelError, match="does not match its checksum"):
        import_model(zipped(broken, tmp_path / "broken.zip"))
    with pytest.raises(ModelError, match="does not match its checksum"):
        import_model(broken)
    assert list_models() == [BUNDLED]


def test_a_variant_of_a_run_is_used_where_it_lies(package, tmp_path):
    variant = tmp_path / "run" / "variants" / "voxresnet-r8-base"
    for fold in range(3):
        shutil.copytree(package, variant / f"fold{fold}" / "model")
    model = import_model(variant)
    assert model.title == "voxresnet-r8-base"
    assert "3 folds together" in describe_model(model.path)
    alone = import_model(variant / "fold1" / "model")
    assert alone.title == "voxresnet-r8-base / fold1"
    assert [each.title for each in list_models()[1:]] == [model.title, alone.title]
    shutil.rmtree(tmp_path / "run")
    assert list_models() == [BUNDLED], "what is gone is not offered"


@pytest.fixture
def panel(empty_panel):
    """Without a result, unlike that of the other files."""
    return empty_panel


def add_phantom(viewer, size=48):
    image, _ = phantom((size,) * 3, spacing=(3.0,) * 3)
    data, options, _ = layer_of_volume(Volume(image, Geometry(image.shape, np.diag([3.0, 3, 3, 1]))), "phantom")
    return viewer.add_image(data, **options)


def test_a_model_is_imported_in_the_panel_and_segments(viewer, panel, supervoxel_package, tmp_path, monkeypatch, qtbot):
    add_phantom(viewer)
    path = zipped(supervoxel_package, tmp_path / "mine.zip")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
    assert panel.model.convention.enabled
    qtbot.mouseClick(panel.model.file_button, LEFT)
    qtbot.waitUntil(lambda: panel.status.text() == "The model mine is ready.", timeout=WAIT)
    assert not panel.model.convention.enabled, "conventions are the bundled model's"
    qtbot.waitUntil(lambda: "T1 → CSF, GM, WM" in panel.model.facts.text(), timeout=WAIT)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.layers.session.about.model == "mine"
    assert panel.layers.session.about.model_sha256 == weights_sha256(supervoxel_package)


def test_the_estimate_comes_before_the_run(viewer, panel, large_package, package, qtbot):
    qtbot.waitUntil(lambda: panel.model.facts.text() != "", timeout=WAIT)
    assert panel.model.estimate.text() == "", "without a volume there is nothing to tell"
    add_phantom(viewer, 96)
    seconds = {}
    for name, model in (("small", package), ("large", large_package)):
        choose(panel, model)
        qtbot.waitUntil(lambda: panel.model.estimate.text().startswith("About "), timeout=WAIT)
        words = panel.model.estimate.text().split()
        assert words[2] == "s"
        assert "GB are free" in panel.model.estimate.text()
        seconds[name] = int(words[1])
    assert seconds["large"] > seconds["small"]


def test_models_that_are_refused_are_said_and_the_panel_goes_on(viewer, panel, package, tmp_path, qtbot):
    add_phantom(viewer)
    missing = shutil.copytree(package, tmp_path / "missing")
    (missing / "model.safetensors").unlink()
    changed = shutil.copytree(package, tmp_path / "changed")
    (changed / "model.json").write_text((changed / "model.json").read_text().replace("phantom", "Phantom"))
    for folder, words in ((missing, "it has no model.safetensors"), (changed, "does not match its checksum")):
        choose(panel, folder)
        qtbot.mouseClick(panel.run.run_button, LEFT)
        qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
        qtbot.waitUntil(lambda words=words: words in panel.status.text(), timeout=WAIT)
        assert panel.status.details_button.isVisible()
        assert panel.layers is None
    choose(panel, package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.status.text().startswith("Done in")


def test_the_bundled_model_segments_the_sample_without_a_network(viewer, panel, monkeypatch, qtbot):
    """The bar moves at every stage, and no socket is asked for."""

    def refuse(*_, **__):
        raise AssertionError("something asked for the network")

    viewer.open_sample("voxpool", "phantom")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    seen, sentences = [], set()
    panel.run.bar.valueChanged.connect(lambda value: (seen.append(value), sentences.add(panel.status.text())))
    panel.model.convention.value = "all-csf"
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    monkeypatch.undo()
    assert panel.status.text().startswith("Done in"), panel.status.text()
    moved = [value for value in seen if value]
    assert moved == sorted(moved)
    assert len(set(moved)) >= 5
    assert len(sentences) >= 3
    rows = [panel.review.table.topLevelItem(row).text(0) for row in range(panel.review.table.topLevelItemCount())]
    assert rows == ["CSF", "GM", "WM"]
    assert [layer.name for layer in viewer.layers] == ["phantom", "phantom tissues"]


def test_only_one_run_at_a_time_and_a_closed_window_stops_it(viewer, panel, large_package, qtbot):
    add_phantom(viewer, 56)
    choose(panel, large_package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    job = panel.run.job
    qtbot.mouseClick(panel.run.run_button, LEFT)
    panel.run.start()  # as the key S does
    assert panel.run.job is job
    qtbot.waitUntil(lambda: job.stage == "network", timeout=WAIT)
    viewer.close()
    qtbot.waitUntil(lambda: job.cancelled, timeout=WAIT)


class TooLarge:
    """An array that does not fit into memory when all of it is wanted."""

    shape, ndim, dtype, size = (8, 8, 8), 3, np.dtype(np.float32), 512

    def __getitem__(self, index):
        return np.zeros(self.shape, self.dtype)[index]

    def __array__(self, dtype=None, copy=None):
        raise MemoryError


def test_too_little_memory_is_a_sentence(viewer, panel, package, qtbot):
    viewer.add_image(TooLarge(), contrast_limits=(0, 1), name="large")
    choose(panel, package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.status.text().startswith("There is not enough memory; close other programs")
    assert panel.run.run_button.isEnabled()


def test_an_ensemble_is_asked_together(viewer, panel, tmp_path, qtbot):
    for fold, reduction in enumerate((8, 8)):
        make_package(tmp_path / "v" / f"fold{fold}" / "model", reduction=reduction)
    add_phantom(viewer)
    panel.model.use(tmp_path / "v")
    qtbot.waitUntil(lambda: "2 folds together" in panel.model.facts.text(), timeout=WAIT)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.layers.session.about.model_sha256 == weights_sha256(tmp_path / "v")
