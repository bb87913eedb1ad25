"""Three planes, letters and the side of the patient, in a real window."""

import re

import numpy as np
import pytest
import SimpleITK as sitk
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QDialog

from napari_voxpool.display import FileSpace, is_radiological, layer_of_volume
from napari_voxpool.letters import edges_of
from napari_voxpool.reader import read_layers
from tests.io.dicom_files import SHAPE, turn, write_series
from voxpool.data.phantom import phantom
from voxpool.errors import InputError
from voxpool.io import Geometry, Volume, read_volume

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1500, 950)
    return viewer


@pytest.fixture
def head(viewer):
    """A head with a bright lesion in front on the right, and another above it."""
    image, _ = phantom((40, 48, 36))
    image[26:32, 34:42, 22:30] = 3000
    data, options, _ = layer_of_volume(Volume(image, Geometry(image.shape, np.diag([2.0, 2, 2.5, 1]))), "head")
    assert isinstance(options["metadata"]["voxpool"], FileSpace)
    layer = viewer.add_image(data, **options)
    viewer.dims.point = layer.data_to_world((26, 38, 29))
    return layer


@pytest.fixture
def panel(viewer, head, qtbot):
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    qtbot.wait(200)
    return panel


def bright_share(picture):
    """Where the brightest spot lies: share of the height from the top, of the width from the left."""
    grey = picture[..., :3].astype(float).mean(-1)
    return np.argwhere(grey > 0.95 * grey.max()).mean(0) / grey.shape


def letters_of(letters):
    return {edge: label.text() for edge, label in letters.labels.items()}


def test_letters_say_what_the_picture_shows(viewer, panel, qtbot):
    viewer.reset_view()
    qtbot.wait(200)
    letters = panel.view.letters
    for label in letters.labels.values():
        assert label.isVisible()
    assert letters_of(letters) == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    row, column = bright_share(viewer.screenshot(canvas_only=True, flash=False))
    assert row < 0.45
    assert column < 0.47

    before = np.asarray(viewer.layers[0].data).copy()
    qtbot.mouseClick(panel.view.convention_button, LEFT)
    qtbot.wait(200)
    assert not is_radiological(viewer)
    assert panel.view.convention_button.text().startswith("Neurological")
    assert letters_of(letters) == {"top": "A", "bottom": "P", "left": "L", "right": "R"}
    row, column = bright_share(viewer.screenshot(canvas_only=True, flash=False))
    assert row < 0.45
    assert column > 0.53
    np.testing.assert_array_equal(viewer.layers[0].data, before)

    viewer.dims.order = (1, 0, 2)
    assert letters_of(letters) == {"top": "S", "bottom": "I", "left": "L", "right": "R"}
    viewer.dims.order = (2, 0, 1)
    assert letters_of(letters)["top"] == "S"
    assert {letters_of(letters)["left"], letters_of(letters)["right"]} == {"A", "P"}
    viewer.dims.ndisplay = 3
    assert edges_of(viewer) is None
    assert not letters.labels["top"].isVisible()


@pytest.fixture
def planes(viewer, panel, qtbot):
    qtbot.mouseClick(panel.view.ortho_button, LEFT)
    qtbot.wait(500)
    widget = viewer.window.dock_widgets["Three planes"]
    yield widget.planes
    viewer.window.remove_dock_widget(widget)
    qtbot.wait(50)


def test_planes_share_arrays_and_show_the_lesion_on_the_right_side(viewer, head, planes, qtbot):
    for name, letters in {
        "Coronal": {"top": "S", "bottom": "I", "left": "R", "right": "L"},
        "Sagittal": {"top": "S", "bottom": "I", "left": "A", "right": "P"},
    }.items():
        plane = planes[name]
        assert plane.copies[head].data is head.data
        assert letters_of(plane.letters) == letters
        for label in plane.letters.labels.values():
            assert label.width() >= label.sizeHint().width(), "a letter is cut off"
        np.testing.assert_allclose(plane.model.dims.point, viewer.dims.point)
        qtbot.wait(100)
        row, column = bright_share(plane.qt.screenshot(flash=False))
        assert row < 0.5  # the lesion lies high
        assert column < 0.5  # on the patient's right, and in front


def test_a_click_in_one_plane_moves_all(viewer, head, planes, qtbot):
    plane = planes["Coronal"]
    target = np.asarray(head.data_to_world((10, 38, 12)))
    scene = plane.qt.canvas.view.scene.transform.map([target[2], target[0], 0, 1])
    point = QPoint(*(round(each) for each in scene[:2] / scene[3]))
    qtbot.mouseClick(plane.qt.canvas.native, LEFT, pos=point)
    qtbot.wait(100)
    for model in (viewer, planes["Sagittal"].model, plane.model):
        assert tuple(round(each) for each in head.world_to_data(model.dims.point)) == (10, 38, 12)


def test_planes_follow_layers_edits_and_the_side(viewer, head, panel, planes, qtbot):
    labels = viewer.add_labels(np.zeros(head.data.shape, np.uint8), name="tissues", scale=head.scale)
    copies = [plane.copies[labels] for plane in planes.values()]
    assert all(copy.data is labels.data for copy in copies)
    labels.opacity = 0.9
    labels.visible = False
    assert [copy.opacity for copy in copies] == [0.9, 0.9]
    assert not any(copy.visible for copy in copies)
    labels.visible = True
    before = [plane.qt.screenshot(flash=False) for plane in planes.values()]
    labels.data[:] = 3
    labels.refresh()
    qtbot.wait(200)
    for plane, picture in zip(planes.values(), before, strict=True):
        assert np.abs(plane.qt.screenshot(flash=False).astype(int) - picture).max() > 50
    qtbot.mouseClick(panel.view.convention_button, LEFT)
    assert letters_of(planes["Coronal"].letters)["left"] == "L"
    assert letters_of(planes["Sagittal"].letters)["left"] == "A", "the nose stays on the left"
    viewer.layers.remove(labels)
    assert all(len(plane.model.layers) == 1 for plane in planes.values())


def test_window_presets_are_percentiles_of_what_is_not_background(head, panel):
    inside = head.data[head.data > head.data.min()]
    panel.view.preset.setCurrentText("Dark tissue")
    np.testing.assert_allclose(head.contrast_limits, np.percentile(inside, (0, 60)))


def test_a_dicom_folder_asks_which_series(viewer, tmp_path, monkeypatch, qtbot):
    array = np.random.default_rng(0).integers(0, 900, SHAPE)
    array[6:, :3, 4:] = 4000  # on the left, in front, above: DICOM's y runs to the back
    write_series(tmp_path / "a", array, uid="1.2.3.1", name="t1", rotation=turn(5))
    write_series(tmp_path / "b", array[:, :, :4], uid="1.2.3.2", name="flair")
    write_series(tmp_path / "c", array[:, :, :1], uid="1.2.3.3", name="scout")
    seen = []

    def choose(dialog):
        seen.append(dialog)
        rows = [dialog.table.topLevelItem(number) for number in range(dialog.table.topLevelItemCount())]
        assert [row.text(0) for row in rows] == ["t1", "flair", "scout"]
        assert [bool(row.flags()) for row in rows] == [True, True, False]
        assert "localiser" in rows[2].text(4)
        assert dialog.chosen().description == "t1"
        dialog.table.setCurrentItem(rows[1])
        return QDialog.DialogCode.Accepted

    monkeypatch.setattr(QDialog, "exec", choose)
    viewer.open(str(tmp_path), plugin="voxpool")
    assert [layer.name for layer in viewer.layers] == ["flair"]
    np.testing.assert_array_equal(viewer.layers[0].data.shape, (4, 10, 9))

    monkeypatch.setattr(QDialog, "exec", lambda dialog: QDialog.DialogCode.Rejected)
    viewer.open(str(tmp_path), plugin="voxpool")
    assert len(viewer.layers) == 1
    assert len(seen) == 1

    viewer.layers.clear()
    viewer.open(str(tmp_path / "a"), plugin="voxpool")  # one volume: nobody is asked
    (layer,) = viewer.layers
    sitk.WriteImage(
        sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "a"))),
        str(tmp_path / "twin.nii.gz"),
    )
    viewer.open(str(tmp_path / "twin.nii.gz"), plugin="voxpool")
    np.testing.assert_array_equal(layer.data, viewer.layers[1].data)
    np.testing.assert_allclose(layer.extent.world, viewer.layers[1].extent.world, atol=1e-3)
    assert layer.data[-1, -1, 0] == 4000, "above, in front, on the left"


def test_a_broken_dicom_folder_loads_nothing(viewer, tmp_path):
    write_series(tmp_path / "gap", np.ones(SHAPE), skip=(2,))
    with pytest.raises(InputError, match="slices are missing"):
        read_layers(str(tmp_path / "gap"))
    viewer.open(str(tmp_path / "gap"), plugin="voxpool")
    assert not viewer.layers


def test_the_place_under_the_mouse_is_that_of_the_file(viewer, oblique_file, qtbot):
    viewer.open(str(oblique_file), plugin="voxpool")
    layer = viewer.layers[0]
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    assert "stored PIL" in panel.volume.facts.text()
    assert "oblique by 10°" in panel.volume.facts.text()
    viewer.dims.set_current_step(0, 11)
    viewer.reset_view()
    qtbot.wait(200)
    canvas = viewer.window._qt_viewer.canvas
    world = np.asarray(layer.data_to_world((11, 30, 22)))
    scene = canvas.view.scene.transform.map([world[2], world[1], 0, 1])
    qtbot.mouseMove(canvas.native, QPoint(*(round(each) for each in scene[:2] / scene[3])))
    qtbot.wait(50)
    geometry = read_volume(oblique_file).geometry
    x, y, z = (geometry.ras().affine @ [22, 30, 11, 1])[:3]
    said = re.fullmatch(r"At ([LR]) ([\d.]+), ([PA]) ([\d.]+), ([IS]) ([\d.]+) mm", panel.view.here.text()).groups()
    found = [(1 if side in "RAS" else -1) * float(mm) for side, mm in zip(said[::2], said[1::2], strict=True)]
    np.testing.assert_allclose(found, (x, y, z), atol=1.0)  # the voxel's middle, give or take half a pixel
    qtbot.mouseMove(canvas.native, QPoint(2, 2))
    qtbot.wait(50)
    assert panel.view.here.text() == ""
