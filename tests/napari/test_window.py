"""The plugin in a real window, used with the mouse; needs a display (`make pytest` runs these under Xvfb)."""

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_voxpool.display import layer_of_volume
from napari_voxpool.reader import read_layers
from tests.napari.helpers import choose
from voxpool.data.phantom import phantom
from voxpool.errors import InputError
from voxpool.inference import Segmenter
from voxpool.io import Geometry, Volume, read_volume

LEFT = Qt.MouseButton.LeftButton
WAIT = 300_000


def open_panel(viewer, package, qtbot):
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    panel.model.device.value = "cpu"
    if package is not None:
        choose(panel, package)
    return panel


def add_phantom(viewer, size=64):
    image, _ = phantom((size,) * 3)
    data, options, _ = layer_of_volume(Volume(image, Geometry(image.shape, np.eye(4))), "phantom")
    return viewer.add_image(data, **options)


def labels_of(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def test_file_opens_the_right_way_up(viewer, oblique_file, qtbot):
    """The bright corner lies in front and on the patient's right: on the screen it is up and on the left."""
    viewer.open(str(oblique_file), plugin="voxpool")
    (layer,) = viewer.layers
    assert layer.name == "head"
    assert layer.data.shape == (36, 48, 40)
    viewer.dims.set_current_step(0, 18)
    viewer.reset_view()
    qtbot.wait(200)
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float).mean(-1)
    brightest = np.argwhere(picture > 0.95 * picture.max())
    row, column = brightest.mean(0) / picture.shape
    assert row < 0.45
    assert column < 0.45


def test_file_that_cannot_be_used_is_refused_by_name(viewer, tmp_path):
    path = tmp_path / "text.nii.gz"
    path.write_text("no image")
    with pytest.raises(InputError, match=r"text\.nii\.gz"):
        read_layers(str(path))
    viewer.open(str(path), plugin="voxpool")
    assert not viewer.layers


def test_sample_data_opens(viewer):
    viewer.open_sample("voxpool", "phantom")
    (layer,) = viewer.layers
    assert layer.ndim == 3
    np.testing.assert_allclose(layer.scale, 2.5)
    np.testing.assert_allclose(np.mean(layer.extent.world, axis=0), 0, atol=2.5)


@pytest.mark.parametrize("model", ["package", "supervoxel_package"])
def test_segment_adds_labels_on_the_image_and_lists_volumes(viewer, oblique_file, model, qtbot, request):
    package = request.getfixturevalue(model)
    viewer.open(str(oblique_file), plugin="voxpool")
    image = viewer.layers[0]
    panel = open_panel(viewer, package, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    assert not panel.run.run_button.isEnabled()
    assert panel.run.cancel_button.isVisible()
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)

    volume = read_volume(oblique_file)
    expected = Segmenter.load(package, device="cpu").segment(volume)
    (labels,) = labels_of(viewer)
    np.testing.assert_array_equal(labels.data, volume.geometry.to_ras(expected.labels).T)
    np.testing.assert_allclose(labels.extent.world, image.extent.world)
    rows = [panel.review.table.topLevelItem(row) for row in range(panel.review.table.topLevelItemCount())]
    assert [row.text(0) for row in rows] == ["CSF", "GM", "WM"]
    voxel_ml = 2.0 * 2.0 * 2.5 / 1000
    for label, row in enumerate(rows, start=1):
        assert float(row.text(1)) == pytest.approx((labels.data == label).sum() * voxel_ml, abs=0.006)
    assert panel.status.text().startswith("Done in ")
    assert panel.run.run_button.isEnabled()
    assert not panel.run.cancel_button.isVisible()


def test_cancel_leaves_nothing_and_the_panel_can_run_again(viewer, package, large_package, qtbot):
    add_phantom(viewer)
    panel = open_panel(viewer, large_package, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    job = panel.run.job
    qtbot.waitUntil(lambda: job.stage in ("prepare", "network"), timeout=WAIT)
    viewer.dims.set_current_step(0, 5)
    qtbot.mouseClick(panel.run.cancel_button, LEFT)
    assert panel.status.text() == "Stopping …"
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.status.text() == "Cancelled; nothing was changed."
    assert not labels_of(viewer)

    choose(panel, package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert len(labels_of(viewer)) == 1


def test_image_removed_during_the_run_gets_no_result(viewer, large_package, qtbot):
    layer = add_phantom(viewer, 48)
    panel = open_panel(viewer, large_package, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.status.text() == "The layer phantom was closed, so its result was dropped."
    assert not viewer.layers


def test_panel_closed_during_the_run_stops_it(viewer, large_package, qtbot):
    add_phantom(viewer, 48)
    panel = open_panel(viewer, large_package, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    job = panel.run.job
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: job.cancelled, timeout=WAIT)
    assert not labels_of(viewer)


def test_what_is_missing_is_said_in_the_panel(viewer, qtbot):
    panel = open_panel(viewer, None, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    assert panel.status.text() == "There is no image layer; open a volume first."
    assert panel.run.job is None


class LostFile:
    """An array on a disk that is gone: its planes were read before, all of it cannot be."""

    shape, ndim, dtype, size = (8, 8, 8), 3, np.dtype(np.float32), 512

    def __getitem__(self, index):
        return np.zeros(self.shape, self.dtype)[index]

    def __array__(self, dtype=None, copy=None):
        raise OSError("the disk is gone")


def test_unforeseen_error_does_not_leave_the_panel_busy(viewer, package, monkeypatch, qtbot):
    viewer.add_image(LostFile(), contrast_limits=(0, 1), name="lost")
    panel = open_panel(viewer, package, qtbot)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert "unforeseen failed (the disk is gone)" in panel.status.text()
    seen = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: seen.append((box.text(), box.detailedText())))
    qtbot.mouseClick(panel.status.details_button, LEFT)
    ((text, details),) = seen
    assert text == panel.status.text()
    assert "OSError: the disk is gone" in details
    assert "display.py" in details
    assert panel.run.run_button.isEnabled()
