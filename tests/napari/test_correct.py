"""Correcting a segmentation as a person does: mouse on the canvas, keys, buttons, and the pixels that follow."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Labels
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_voxpool.widgets.review import DICE, HD95, ML, NAME
from napari_voxpool.widgets.tools import BRUSH, FILL, NAVIGATE, PICK, VOXELS
from tests.napari.helpers import choose, choose_other, click, colour_at, drag, inside
from voxpool.io import Geometry, Volume, read_volume, write_volume
from voxpool.metrics import dice, score_case

LEFT = Qt.MouseButton.LeftButton
WAIT = 300_000
CSF, GM, WM = 1, 2, 3


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer, oblique_file, supervoxel_package, qtbot):
    """The panel with a result of the file."""
    viewer.window._qt_window.resize(1500, 950)
    viewer.open(str(oblique_file), plugin="voxpool")
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    panel.model.device.value = "cpu"
    choose(panel, supervoxel_package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.layers is not None, panel.status.text()
    viewer.dims.set_current_step(0, 18)
    viewer.reset_view()
    qtbot.wait(200)
    return panel


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_click_relabels_exactly_that_supervoxel(viewer, panel, axis, flipped, qtbot):
    layer, session = panel.layers.tissues, panel.layers.session
    index, number = inside(panel)
    viewer.dims.order = (axis, *(each for each in range(3) if each != axis))
    viewer.dims.set_current_step(axis, index[axis])
    if flipped:
        viewer.scene.camera.orientation2d = ("up", "right")
    viewer.reset_view()
    qtbot.wait(200)
    before, colour = session.correction.labels.copy(), colour_at(viewer, layer, index)
    label = choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    click(viewer, layer, index, qtbot)
    changed = before.copy()
    changed[session.correction.regions.segments == number] = label
    np.testing.assert_array_equal(layer.data, changed)
    assert np.abs(colour_at(viewer, layer, index) - colour).max() > 20
    assert float(panel.review.table.topLevelItem(label - 1).text(ML)) == pytest.approx(
        (changed == label).sum() * 0.01, abs=0.006
    )
    # undone from another plane, with the key
    viewer.dims.set_current_step(axis, 2)
    viewer.layers.selection.active = layer
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(layer.data, before)
    assert not panel.correct.undo_button.isEnabled()
    qtbot.mouseClick(panel.correct.redo_button, LEFT)
    np.testing.assert_array_equal(layer.data, changed)


def test_a_stroke_over_several_supervoxels_is_one_step(viewer, panel, qtbot):
    layer, correction = panel.layers.tissues, panel.layers.session.correction
    index, _ = inside(panel)
    before = correction.labels.copy()
    label = choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[BRUSH], LEFT)
    places = [(18, row, index[2]) for row in range(index[1] - 8, index[1] + 9)]
    drag(viewer, layer, places, qtbot)
    ids = {correction.regions.at(place) for place in places} - {None}
    assert len(ids) > 1
    expected = before.copy()
    expected[np.isin(correction.regions.segments, list(ids))] = label
    np.testing.assert_array_equal(correction.labels, expected)
    assert correction.edits == 1
    viewer.dims.set_current_step(0, 3)
    qtbot.mouseClick(panel.correct.undo_button, LEFT)
    np.testing.assert_array_equal(correction.labels, before)


def test_larger_supervoxels_and_similar_neighbours_are_given_together(viewer, panel, qtbot):
    layer, correction = panel.layers.tissues, panel.layers.session.correction
    index, number = inside(panel)
    label = choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    qtbot.waitUntil(panel.correct.size.isEnabled, timeout=WAIT)
    panel.correct.size.setValue(1)
    assert panel.correct.size_name.text() == "medium"
    before = correction.labels.copy()
    click(viewer, layer, index, qtbot)
    expected = before.copy()
    expected[np.isin(correction.regions.segments, correction.regions.family(number, 1))] = label
    np.testing.assert_array_equal(correction.labels, expected)
    qtbot.mouseClick(panel.correct.undo_button, LEFT)

    panel.correct.similar.setChecked(True)
    panel.correct.tolerance.setValue(10)
    click(viewer, layer, index, qtbot)
    expected = before.copy()
    expected[np.isin(correction.regions.segments, correction.regions.similar(number, 0.5))] = label
    np.testing.assert_array_equal(correction.labels, expected)


def test_the_voxel_brush_is_undone_like_any_other(viewer, panel, qtbot):
    layer, correction = panel.layers.tissues, panel.layers.session.correction
    index, _ = inside(panel)
    before = correction.labels.copy()
    label = choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[VOXELS], LEFT)
    layer.brush_size = 3
    drag(viewer, layer, [index, (18, index[1] + 1, index[2])], qtbot)
    painted = np.flatnonzero((correction.labels != before).ravel())
    assert 0 < len(painted) < 40
    assert set(correction.labels.ravel()[painted]) == {label}
    assert correction.edits == 1
    assert "voxels" in panel.correct.undo_button.toolTip()
    assert "voxels" in panel.correct.count.text()
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(correction.labels, before)
    assert correction.rows()[label - 1].voxels == (before == label).sum()


def test_fill_gives_a_connected_part(viewer, panel, qtbot):
    layer, correction = panel.layers.tissues, panel.layers.session.correction
    index, _ = inside(panel)
    panel.layers.session.give(range(len(correction.regions)), GM)
    label = choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[FILL], LEFT)
    click(viewer, layer, index, qtbot)
    assert (correction.labels[correction.regions.segments >= 0] == label).mean() > 0.9


def test_clicks_that_mean_nothing_change_nothing(viewer, panel, qtbot):
    layer, correction = panel.layers.tissues, panel.layers.session.correction
    index, _ = inside(panel)
    label = choose_other(panel, index)
    before = correction.labels.copy()
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    click(viewer, layer, (18, 0, 0), qtbot)
    assert panel.status.text() == "There is no supervoxel here."
    click(viewer, layer, (18, -5, -5), qtbot)
    click(viewer, layer, index, qtbot, Qt.KeyboardModifier.ShiftModifier)
    drag(viewer, layer, [index, (18, index[1] + 12, index[2])], qtbot)  # that moves the picture
    qtbot.mouseClick(panel.correct.buttons[NAVIGATE], LEFT)
    click(viewer, layer, index, qtbot)
    np.testing.assert_array_equal(correction.labels, before)
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    viewer.dims.ndisplay = 3
    qtbot.wait(200)
    native = viewer.window._qt_viewer.canvas.native
    qtbot.mouseClick(native, LEFT, pos=QPoint(native.width() // 2, native.height() // 2))
    np.testing.assert_array_equal(correction.labels, before)
    assert "leave 3D first" in panel.status.text()
    viewer.dims.ndisplay = 2
    assert label


def test_tissues_are_hidden_and_shown_by_the_table(viewer, panel, qtbot):
    layer = panel.layers.tissues
    index, number = inside(panel)
    panel.layers.refresh(panel.layers.session.give([number], WM))
    shown = colour_at(viewer, layer, index)
    panel.review.table.topLevelItem(WM - 1).setCheckState(NAME, Qt.CheckState.Unchecked)
    qtbot.wait(100)
    hidden = colour_at(viewer, layer, index)
    assert np.ptp(hidden) <= 3, "only the grey of the scan is left"
    assert np.ptp(shown) > 20
    panel.review.table.topLevelItem(WM - 1).setCheckState(NAME, Qt.CheckState.Checked)
    qtbot.wait(100)
    np.testing.assert_allclose(colour_at(viewer, layer, index), shown, atol=2)


def test_a_reference_gives_dice_that_follows_edits(viewer, panel, qtbot):
    correction = panel.layers.session.correction
    truth = np.roll(correction.labels, 2, axis=1)
    place = {"scale": panel.layers.tissues.scale, "translate": panel.layers.tissues.translate}
    reference = viewer.add_labels(truth, name="truth", visible=False, **place)
    panel.review.reference.value = reference
    assert "can reach Dice" in panel.review.ceiling.text()

    def check():
        for label in (CSF, GM, WM):
            expected = dice(correction.labels == label, truth == label)
            assert panel.review.table.topLevelItem(label - 1).text(DICE) == (
                "–" if np.isnan(expected) else f"{expected:.3f}"
            )
        qtbot.waitUntil(lambda: panel.review.table.topLevelItem(0).text(HD95) != "…", timeout=WAIT)
        scores = score_case(
            correction.labels, truth, spacing=panel.layers.tissues.scale, label_names=correction.label_names
        )
        for number, score in enumerate(scores.values()):
            assert panel.review.table.topLevelItem(number).text(HD95) == (
                "–" if np.isnan(score.hd95_mm) else f"{score.hd95_mm:.1f}"
            )

    check()
    index, _ = inside(panel)
    choose_other(panel, index)
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    click(viewer, panel.layers.tissues, index, qtbot)
    assert correction.edits == 1
    check()
    panel.review.reference.value = panel.layers.tissues
    assert "belongs to the result itself" in panel.status.text()
    assert panel.review.table.topLevelItem(0).text(DICE) == ""
    panel.review.reference.value = viewer.add_image(np.full((4, 4, 4), 0.5), contrast_limits=(0, 1), name="half")
    assert "half holds fractions" in panel.status.text()
    panel.review.reference.value = viewer.add_labels(np.full(truth.shape, 7), name="other", **place)
    assert "holds the labels 7" in panel.status.text()
    assert panel.review.table.topLevelItem(0).text(DICE) == ""


def test_a_reference_opened_from_a_file_may_have_another_grid(viewer, panel, tmp_path, oblique_file, qtbot):
    correction, scan = panel.layers.session.correction, read_volume(oblique_file)
    truth = scan.geometry.from_ras(np.roll(correction.labels, 1, axis=2).T)
    write_volume(tmp_path / "same.nii.gz", truth, like=scan)
    half = scan.geometry.affine.copy()
    half[:3, :3] /= 2
    half[:3, 3] += scan.geometry.affine[:3, :3] @ [-0.25, -0.25, -0.25]
    fine = truth.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    write_volume(tmp_path / "fine.nii.gz", fine, like=Volume(fine, Geometry(fine.shape, half)))
    scores = []
    for name in ("same", "fine"):
        viewer.open(str(tmp_path / f"{name}.nii.gz"), plugin="voxpool")
        panel.review.reference.value = viewer.layers[name]
        scores.append([panel.review.table.topLevelItem(row).text(DICE) for row in range(3)])
        assert ("another grid" in panel.status.text()) == (name == "fine")
    expected = np.roll(correction.labels, 1, axis=2)
    for label, score in enumerate(scores[0], start=1):
        assert float(score) == pytest.approx(dice(correction.labels == label, expected == label), abs=6e-4)
    assert scores[0] == scores[1], "each voxel of the scan is eight of the finer map"


def test_doubtful_supervoxels_are_walked_and_drawn(viewer, panel, qtbot):
    regions = panel.layers.session.correction.regions
    for number in regions.by_doubt()[:3]:
        qtbot.mouseClick(panel.review.next_button, LEFT)
        assert panel.status.text().startswith(f"Supervoxel {number} is ")
        here = panel.layers.index_at(viewer.dims.point)
        assert regions.segments[here] == number
    panel.review.doubt.setChecked(True)
    panel.review.borders.setChecked(True)
    doubt, borders = panel.layers.doubt, panel.layers.borders
    inside_brain = regions.segments >= 0
    np.testing.assert_allclose(doubt.data[inside_brain], regions.uncertainty[regions.segments[inside_brain]])
    np.testing.assert_array_equal(borders.data, regions.segments + 1)
    assert borders.contour == 1
    panel.review.borders.setChecked(False)
    panel.review.doubt.setChecked(False)
    assert not borders.visible
    assert not doubt.visible


def test_export_lies_on_the_scan_and_the_report_agrees_with_the_table(
    panel, oblique_file, tmp_path, monkeypatch, qtbot
):
    correction = panel.layers.session.correction
    panel.layers.session.give([3], WM)
    panel.review.update_numbers()
    for name, button in (("out.nii.gz", "labels"), ("out.csv", "report"), ("out.json", "report")):
        path = tmp_path / name
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, path=path, **__: (str(path), ""))
        qtbot.mouseClick(getattr(panel.export, f"{button}_button"), LEFT)
        assert panel.status.text().startswith(f"Saved {path}")
    source, found = nib.load(oblique_file), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(found.affine, source.affine)
    assert found.header["sform_code"] == source.header["sform_code"]
    assert found.header["qform_code"] == source.header["qform_code"]
    volume = read_volume(oblique_file)
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume.geometry.from_ras(correction.labels.T))
    assert json.loads((tmp_path / "out.labels.json").read_text(encoding="utf-8")) == {
        "0": "BG",
        "1": "CSF",
        "2": "GM",
        "3": "WM",
    }
    facts = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert facts["edits"] == 1
    assert facts["note"] == "research use only, not a medical device"
    assert str(tmp_path) not in json.dumps(facts)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    for number, (row, tissue) in enumerate(zip(rows, facts["tissues"], strict=True)):
        item = panel.review.table.topLevelItem(number)
        assert row["name"] == tissue["name"] == item.text(NAME)
        assert f"{float(row['volume_ml']):.2f}" == f"{tissue['volume_ml']:.2f}" == item.text(ML)


def test_a_folder_that_cannot_be_written_is_a_sentence(panel, tmp_path, monkeypatch, qtbot):
    (tmp_path / "nowhere").write_text("no folder")
    path = tmp_path / "nowhere" / "out.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    qtbot.mouseClick(panel.export.labels_button, LEFT)
    assert "nowhere" in panel.status.text()
    assert "Saved" not in panel.status.text()


def test_corrections_are_offered_again_and_not_dropped_unasked(viewer, panel, oblique_file, monkeypatch, qtbot):
    session = panel.layers.session
    for number in range(5):
        session.give([number], WM)
    expected = session.correction.labels.copy()
    asked = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()) or QMessageBox.StandardButton.Cancel)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    assert panel.run.job is None
    assert asked == ["Segment anew and drop 5 corrections of this scan?"]

    # the scan is closed and opened again, as after a crash
    viewer.layers.clear()
    viewer.open(str(oblique_file), plugin="voxpool")
    qtbot.waitUntil(panel.run.resume_button.isVisible, timeout=WAIT)
    assert panel.run.resume_button.text().startswith("Go on with 5 corrections of ")
    qtbot.mouseClick(panel.run.resume_button, LEFT)
    qtbot.waitUntil(lambda: panel.status.text() == "5 corrections are there again.", timeout=WAIT)
    np.testing.assert_array_equal(panel.layers.session.correction.labels, expected)
    (labels,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    np.testing.assert_array_equal(labels.data, expected)
    qtbot.mouseClick(panel.correct.undo_button, LEFT)
    assert panel.layers.session.correction.edits == 4


def test_the_picture_shows_the_planes_and_the_tissues(panel, viewer, tmp_path, monkeypatch, qtbot):
    index, number = inside(panel)
    panel.layers.session.correction.labels[:] = 0
    panel.layers.session.take_over()
    panel.layers.session.give(range(len(panel.layers.session.correction.regions)), CSF)
    panel.layers.session.give([number], WM)
    viewer.dims.point = panel.layers.tissues.data_to_world(index)
    path = tmp_path / "planes.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    qtbot.mouseClick(panel.export.picture_button, LEFT)
    assert panel.status.text().startswith("Saved ")
    pixels = np.asarray(Image.open(path)).astype(int)
    spread = np.ptp(pixels, axis=-1)
    yellow = (pixels[..., 0] > pixels[..., 2] + 40) & (pixels[..., 1] > pixels[..., 2] + 40)
    blue = (pixels[..., 2] > pixels[..., 0] + 30) & (spread > 30)
    top = slice(0, 14 + 360 + 14)
    assert blue[top].sum() > 1000
    columns = np.flatnonzero(yellow[top].any(axis=0))
    assert len(columns) > 10, "the supervoxel is in all three planes"
    gaps = np.flatnonzero(np.diff(columns) > 50)
    assert len(gaps) == 2


def test_all_goes_by_keys(viewer, panel, qtbot):
    canvas = viewer.window._qt_viewer.canvas.native
    correction, layer = panel.layers.session.correction, panel.layers.tissues
    index, number = inside(panel)
    panel.layers.session.give([number], CSF)
    edits = correction.edits

    def press(key, modifier=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(canvas, key, modifier)

    press(Qt.Key.Key_V)
    assert panel.correct.buttons[PICK].isChecked()
    press(Qt.Key.Key_3, Qt.KeyboardModifier.AltModifier)
    assert panel.correct.tissue.currentText() == "WM"
    press(Qt.Key.Key_9, Qt.KeyboardModifier.AltModifier)
    assert panel.correct.tissue.currentText() == "WM", "there is no ninth tissue"
    click(viewer, layer, index, qtbot)
    assert correction.labels[index] == WM
    press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert correction.labels[index] == CSF
    press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert correction.labels[index] == WM
    assert correction.edits == edits + 1
    for key, tool in ((Qt.Key.Key_B, BRUSH), (Qt.Key.Key_F, FILL), (Qt.Key.Key_X, VOXELS), (Qt.Key.Key_C, NAVIGATE)):
        press(key)
        assert panel.correct.buttons[tool].isChecked()
    press(Qt.Key.Key_H)
    assert not layer.visible
    press(Qt.Key.Key_H)
    assert layer.visible
    press(Qt.Key.Key_N)
    assert panel.status.text().startswith("Supervoxel ")
    press(Qt.Key.Key_R)
    assert panel.view.convention_button.text().startswith("Neurological")
