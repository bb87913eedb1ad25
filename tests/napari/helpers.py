"""What a person does at the window: choose a model, click and drag on the picture, look at its pixels."""

import numpy as np
from qtpy.QtCore import QPoint, Qt

from napari_voxpool.models import Model
from napari_voxpool.widgets.review import NAME

LEFT = Qt.MouseButton.LeftButton
WAIT = 300_000
CSF, GM, WM = 1, 2, 3


def choose(panel, package):
    """Have the panel's next run take a model package."""
    panel.model.list(Model("test", str(package)))


def where_on_canvas(viewer, layer, index):
    """The point of the canvas that shows a voxel."""
    canvas = viewer.window._qt_viewer.canvas
    world = np.asarray(layer.data_to_world(index))[list(viewer.dims.displayed)]
    scene = canvas.view.scene.transform.map([*world[::-1], 0, 1])
    return QPoint(*(round(each) for each in scene[:2] / scene[3]))


def click(viewer, layer, index, qtbot, modifier=Qt.KeyboardModifier.NoModifier):
    native = viewer.window._qt_viewer.canvas.native
    qtbot.mouseClick(native, LEFT, modifier, where_on_canvas(viewer, layer, index))
    qtbot.wait(50)


def drag(viewer, layer, indices, qtbot):
    native = viewer.window._qt_viewer.canvas.native
    points = [where_on_canvas(viewer, layer, index) for index in indices]
    qtbot.mousePress(native, LEFT, pos=points[0])
    for point in points[1:]:
        qtbot.mouseMove(native, point)
        qtbot.wait(20)
    qtbot.mouseRelease(native, LEFT, pos=points[-1])
    qtbot.wait(50)


def colour_at(viewer, layer, index):
    picture = viewer.screenshot(canvas_only=True, flash=False)
    native = viewer.window._qt_viewer.canvas.native
    point = where_on_canvas(viewer, layer, index)
    scale = picture.shape[1] / native.width()
    return picture[round(point.y() * scale), round(point.x() * scale), :3].astype(int)


def inside(panel, plane=18):
    """A voxel well inside a supervoxel of an axial plane, and its number."""
    segments = panel.layers.session.correction.regions.segments
    counts = np.bincount(segments[plane][segments[plane] >= 0])
    number = int(counts.argmax())
    places = np.argwhere(segments[plane] == number)
    nearest = np.square(places - places.mean(0)).sum(1).argmin()
    return (plane, *(int(each) for each in places[nearest])), number


def choose_other(panel, index):
    """Choose a tissue that the voxel does not have, by a click on the table."""
    now = panel.layers.session.correction.labels[index]
    label = WM if now != WM else CSF
    row = panel.review.table.topLevelItem(label - 1)
    panel.review.table.itemClicked.emit(row, NAME)
    assert panel.correct.tissue.currentText() == row.text(NAME)
    return label
