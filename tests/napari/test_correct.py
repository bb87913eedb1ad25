"""Correcting a segmentation as a person does: mouse on the canvas, keys, buttons, and the pixels that follow."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_voxpool.widgets.review import DICE, HD95, ML, NAME
from napari_voxpool.widgets.tools import BRUSH, FILL, NAVIGATE, PICK, VOXELS
from tests.napari.helpers import CSF, GM, LEFT, WAIT, WM, choose_other, click, colour_at, drag, inside, where_on_canvas
from voxpool.io import Geometry, Volume, read_volume, write_volume
from voxpool.metrics import dice, score_case


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
        np.testing.assert_array_equal(panel.correct.tools.preview.layer.data > 0, regions.segments == number)
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


def test_what_a_click_would_change_is_outlined_under_the_mouse(viewer, panel, qtbot):
    correction, layer = panel.layers.session.correction, panel.layers.tissues
    index, number = inside(panel)
    native = viewer.window._qt_viewer.canvas.native
    qtbot.waitUntil(panel.correct.size.isEnabled, timeout=WAIT)
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)

    def outlined():
        preview = panel.correct.tools.preview.layer
        return set() if preview is None else set(np.unique(correction.regions.segments[preview.data > 0]))

    def hover(place):
        qtbot.mouseMove(native, where_on_canvas(viewer, layer, place) + QPoint(2, 2))
        qtbot.mouseMove(native, where_on_canvas(viewer, layer, place))

    def wait_for(ids):
        qtbot.waitUntil(lambda: outlined() == ids, timeout=WAIT)

    hover(index)
    wait_for({number})
    name = correction.label_names[int(correction.labels[index])]
    ml = correction.regions.sizes[number] * 0.01
    doubt = correction.regions.uncertainty[number]
    assert panel.correct.hovered.text() == f"Supervoxel {number}, {ml:.2f} mL: {name}, {doubt:.0%} doubtful"
    panel.correct.size.setValue(2)
    assert outlined() == set(correction.regions.family(number, 2))
    panel.correct.size.setValue(0)
    panel.correct.similar.setChecked(True)
    for step in (4, 12):  # the slider's own preview, the mouse does not move
        panel.correct.tolerance.setValue(step)
        expected = correction.regions.similar(number, step / 20)
        assert outlined() == set(expected)
    assert panel.correct.hovered.text().startswith(f"{len(expected)} supervoxels")
    before = correction.labels.copy()
    label = choose_other(panel, index)
    click(viewer, layer, index, qtbot)
    changed = np.isin(correction.regions.segments, expected) & (before != label)
    np.testing.assert_array_equal(correction.labels != before, changed)
    hover((18, 0, 0))
    wait_for(set())
    assert panel.correct.hovered.text() == ""
    hover(index)
    wait_for(set(correction.regions.similar(number, 12 / 20)))
    qtbot.mouseClick(panel.correct.buttons[NAVIGATE], LEFT)
    assert outlined() == set()


def test_a_full_disk_takes_the_correction_back_and_says_so(viewer, panel, qtbot):
    layer, session = panel.layers.tissues, panel.layers.session
    index, number = inside(panel)
    label = choose_other(panel, index)
    (edits,) = session.journal.folder.glob("*.jsonl")
    edits.unlink()
    edits.symlink_to("/dev/full")
    before, colour = layer.data.copy(), colour_at(viewer, layer, index)
    for tool in (PICK, VOXELS):
        qtbot.mouseClick(panel.correct.buttons[tool], LEFT)
        click(viewer, layer, index, qtbot)
        assert "taken back" in panel.status.text()
        assert "No space left on device" in panel.status.text()
        np.testing.assert_array_equal(layer.data, before)
        np.testing.assert_allclose(colour_at(viewer, layer, index), colour, atol=2)
    edits.unlink()
    qtbot.mouseClick(panel.correct.buttons[PICK], LEFT)
    click(viewer, layer, index, qtbot)
    assert session.correction.edits == 1
    region = session.correction.regions.segments == number
    np.testing.assert_array_equal(layer.data != before, region & (before != label))
