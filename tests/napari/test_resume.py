"""Nothing is lost: corrections come back after the window was closed, or its process killed."""

import signal
import subprocess
import sys

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QMessageBox

from napari_voxpool.display import layer_of_volume
from napari_voxpool.session import stored_session
from tests.napari.helpers import LEFT, WAIT, WM
from voxpool.io import read_volume


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


# a window of its own, worked with until it is killed
WINDOW = """
import sys, time
import napari
from pathlib import Path
from qtpy.QtCore import QTimer
from napari.qt import get_qapp
from napari_voxpool.models import Model

app = get_qapp()
viewer = napari.Viewer()
_, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")

def until(done):
    end = time.monotonic() + 240
    while not done() and time.monotonic() < end:
        app.processEvents()
        time.sleep(0.01)
    assert done()

panel.volume.open(Path(sys.argv[1]))
until(lambda: len(viewer.layers) == 1)
panel.model.list(Model("test", sys.argv[2]))
panel.run.start()
until(lambda: panel.layers is not None)
for number in range(5):
    panel.correct._edited(panel.layers.session.give([number], 3))
    panel.correct._edited(panel.layers.session.give([number + 10], 1))
panel.correct.undo()
print(panel.correct.count.text(), flush=True)
while True:
    app.processEvents()
"""


def test_a_killed_window_loses_no_correction(make_napari_viewer, oblique_file, supervoxel_package, qtbot):
    command = [sys.executable, "-c", WINDOW, str(oblique_file), str(supervoxel_package)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    said = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert said.startswith("9 corrections, each saved at once")

    data = layer_of_volume(read_volume(oblique_file), "head")[0]
    viewer = make_napari_viewer(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    panel.volume.open(oblique_file)
    qtbot.waitUntil(panel.run.resume_button.isVisible, timeout=WAIT)
    qtbot.mouseClick(panel.run.resume_button, LEFT)
    qtbot.waitUntil(lambda: panel.layers is not None, timeout=WAIT)
    correction = panel.layers.session.correction
    assert correction.edits == 9
    assert panel.status.text() == "9 corrections are there again."
    regions = correction.regions
    assert (correction.labels[np.isin(regions.segments, range(5))] == WM).all()
    assert (correction.labels[np.isin(regions.segments, range(10, 14))] == 1).all()
    for _ in range(9):
        qtbot.mouseClick(panel.correct.undo_button, LEFT)
    assert correction.edits == 0
    _, found = stored_session(panel._prints[viewer.layers[0]])
    np.testing.assert_array_equal(correction.labels, found.arrays["labels"])
    np.testing.assert_array_equal(viewer.layers[0].data, data)
