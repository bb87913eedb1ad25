"""The window without a mouse, and for eyes that see fewer colours."""

import itertools

import numpy as np
import pytest
from PIL import ImageColor
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QApplication, QComboBox, QTreeWidget

from napari_voxpool.tissues import label_colours
from napari_voxpool.widgets.tools import BRUSH, FILL, NAVIGATE, PICK, VOXELS
from tests.napari.helpers import CSF, WAIT, WM, click, inside
from voxpool.data.head_labels import CLASSES


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


def controls(panel):
    """What can be worked in the panel as it is."""
    kinds = (QAbstractButton, QAbstractSlider, QComboBox, QTreeWidget)
    found = [widget for kind in kinds for widget in panel.findChildren(kind)]
    inner = (QTreeWidget,)  # parts of a table, such as its scroll bars, are not controls of their own
    found = [one for one in found if not any(isinstance(up, inner) for up in ancestors(one, panel))]
    return [one for one in found if one.isVisibleTo(panel) and one.isEnabled() and one.objectName() != "scrollbar"]


def ancestors(widget, top):
    while (widget := widget.parentWidget()) is not None and widget is not top:
        yield widget


def test_every_control_is_reached_by_tab_and_has_a_name(panel):
    wanted = [one for one in controls(panel) if one.focusPolicy() != Qt.FocusPolicy.NoFocus]
    assert len(wanted) > 20
    # no further than the panel: PySide6 does not let go of the window's widgets that it has once given out
    missing, widget = list(wanted), panel.volume.open_button
    while missing and panel.isAncestorOf(widget):
        missing = [one for one in missing if one is not widget]
        widget = widget.nextInFocusChain()
    assert not [one.accessibleName() for one in missing], "not reached by tab"
    for control in wanted:
        name = control.accessibleName() or getattr(control, "text", lambda: "")()
        assert name, f"{control} of {control.parentWidget()} has no name for a screen reader"
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus, f"{name} takes no focus"


def test_the_panel_is_worked_by_tab_and_space(panel, qtbot):
    """From the table down to the export, in the order of the sections."""
    panel.review.table.setFocus()
    seen = []
    for _ in range(60):
        focus = panel.window().focusWidget()
        if focus is panel.export.labels_button:
            break
        seen.append(focus)
        qtbot.keyClick(focus, Qt.Key.Key_Tab)
    assert panel.window().focusWidget() is panel.export.labels_button
    order = [panel.review.borders, panel.review.next_button, panel.correct.buttons[NAVIGATE], panel.correct.tissue]
    places = [seen.index(one) for one in order]
    assert places == sorted(places)
    panel.review.borders.setFocus()
    qtbot.keyClick(panel.review.borders, Qt.Key.Key_Space)
    assert panel.layers.borders.visible
    panel.correct.buttons[PICK].setFocus()
    qtbot.keyClick(panel.correct.buttons[PICK], Qt.Key.Key_Space)
    assert panel.correct.tools.tool == PICK


# linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(linear):
    """CIE L*a*b* of linear sRGB."""
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(np.clip(xyz / [0.9505, 1.0, 1.089], 0, None))
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize(
    ("names", "least"), [(("BG", "CSF", "GM", "WM"), 20), (CLASSES, 12)], ids=["tissues", "whole heads"]
)
def test_tissues_are_told_apart_by_colour_blind_eyes(kind, names, least):
    """A difference of 2.3 is just seen; tissues that lie beside each other must differ plainly."""
    colours = label_colours(dict(enumerate(names)))
    rgb = np.array([ImageColor.getrgb(colours[label]) for label in range(1, len(names))]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1))
    for one, other in itertools.combinations(range(len(seen)), 2):
        assert np.linalg.norm(seen[one] - seen[other]) > least, (names[one + 1], names[other + 1])


def test_the_wheel_scrolls_the_panel_and_changes_nothing(panel, qtbot):
    """A person who scrolls down must not change the device on the way."""
    boxes = [box for box in panel.findChildren(QComboBox) if box.count() > 1]
    sliders = [panel.correct.size, panel.correct.tolerance]
    assert len(boxes) >= 4
    qtbot.waitUntil(panel.correct.size.isEnabled, timeout=WAIT)
    before = [box.currentIndex() for box in boxes] + [slider.value() for slider in sliders]
    for widget in [*boxes, *sliders]:
        for down in (-120, 120):
            event = QWheelEvent(
                QPointF(widget.rect().center()),
                QPointF(widget.mapToGlobal(widget.rect().center())),
                QPoint(0, 0),
                QPoint(0, down),
                Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(widget, event)
    assert [box.currentIndex() for box in boxes] + [slider.value() for slider in sliders] == before
