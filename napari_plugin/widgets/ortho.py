"""Dock "Orthogonal views": the coronal and the sagittal plane beside the axial one, of the same arrays."""

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from napari.qt import QtViewer
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import QLabel, QSplitter, QVBoxLayout, QWidget

from napari_voxpool.display import AXES
from napari_voxpool.widgets.crosshair import Crosshair
from napari_voxpool.widgets.letters import Letters
from napari_voxpool.widgets.tools import CLICK_PIXELS

if TYPE_CHECKING:
    from napari.viewer import Viewer

PLANES = {"Coronal": (1, 0, 2), "Sagittal": (2, 0, 1)}
"""Order of the axes (S, A, R) for each plane: the first is the one that is sliced."""

SAGITTAL_AXIS = 2

# what a layer's copy in another view follows
_FOLLOWED = ("visible", "opacity", "colormap", "contrast_limits", "gamma", "blending", "contour")


class Plane:
    """One further view of a viewer's layers.

    Args:
        viewer: The main viewer.
        name: Key of `PLANES`.
    """

    def __init__(self, viewer: "Viewer", name: str) -> None:
        self.viewer = viewer
        self.model = ViewerModel(title=name)
        self.qt = QtViewer(self.model)
        self.letters = Letters(self.model, self.qt)
        self.crosshair = Crosshair(self.model, self.qt)
        self.copies: dict[Layer, Layer] = {}
        self._following: dict[Layer, list[tuple[Any, Callable[..., None]]]] = {}
        self._order = PLANES[name]
        self.model.mouse_drag_callbacks.append(partial(_go_to, viewer))
        for layer in viewer.layers:
            self.add(layer)
        self.follow_camera()
        self.model.reset_view()

    def add(self, layer: Layer) -> None:
        """Show a layer; its array is shared, not copied."""
        if layer.ndim != len(self._order):
            return
        copy = Layer.create(*layer.as_layer_data_tuple())
        copy.mouse_drag_callbacks.clear()
        copy.editable = False
        self.copies[layer] = copy
        self.model.add_layer(copy)
        follow: list[tuple[Any, Callable[..., None]]] = [(layer.events.set_data, copy.refresh)]
        for name in _FOLLOWED:
            if hasattr(layer, name):
                follow.append((getattr(layer.events, name), partial(_copy_setting, layer, copy, name)))
                setattr(copy, name, getattr(layer, name))
        for event, act in follow:
            event.connect(act)
        self._following[layer] = follow
        self.model.dims.order = self._order
        self.follow_point()

    def remove(self, layer: Layer) -> None:
        """Show a layer no longer."""
        copy = self.copies.pop(layer, None)
        if copy is not None:
            for event, act in self._following.pop(layer):
                event.disconnect(act)
            self.model.layers.remove(copy)

    def follow_point(self) -> None:
        """Show the plane through the main viewer's point."""
        if self.model.dims.ndim == self.viewer.dims.ndim:
            self.model.dims.point = self.viewer.dims.point

    def follow_camera(self) -> None:
        """Have the same side of the patient on the left as the main viewer; the nose always points to the left."""
        side = "left" if self._order[0] == SAGITTAL_AXIS else self.viewer.scene.camera.orientation2d[1]
        self.model.scene.camera.orientation2d = ("up", side)

    def close(self) -> None:
        """Let go of everything."""
        for layer in list(self.copies):
            self.remove(layer)
        self.model.mouse_drag_callbacks.clear()
        self.letters.let_go()
        self.crosshair.let_go()
        self.qt.close()
        self.qt.deleteLater()
        del self.qt, self.letters, self.crosshair


def _go_to(viewer: "Viewer", _: ViewerModel, event: Any) -> Generator[None, None, None]:
    """A click moves all views to the place."""
    start = np.array(event.pos)
    yield
    while event.type == "mouse_move":
        yield
    if np.linalg.norm(np.array(event.pos) - start) < CLICK_PIXELS and len(event.position) == len(AXES):
        viewer.dims.point = event.position


def _copy_setting(layer: Layer, copy: Layer, name: str, _: Any = None) -> None:
    setattr(copy, name, getattr(layer, name))


class OrthogonalViews(QWidget):
    """Coronal and sagittal views beside the main one; a click in any of them moves all, and a crosshair shows where.

    Args:
        napari_viewer: The main viewer, which shows the axial plane.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.planes = {name: Plane(napari_viewer, name) for name in PLANES}
        split = QSplitter(Qt.Orientation.Horizontal)
        for name, plane in self.planes.items():
            side = QWidget()
            column = QVBoxLayout(side)
            column.setContentsMargins(0, 0, 0, 0)
            column.addWidget(QLabel(name))
            column.addWidget(plane.qt)
            split.addWidget(side)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(split)
        self.setMinimumHeight(300)
        # plugins get the viewer in a wrapper that hides its canvas
        whole = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.crosshair = Crosshair(whole, whole.window._qt_viewer)
        self._click = partial(_go_to, napari_viewer)
        whole.mouse_drag_callbacks.append(self._click)
        napari_viewer.layers.events.inserted.connect(self._inserted)
        napari_viewer.layers.events.removed.connect(self._removed)
        napari_viewer.dims.events.point.connect(self._moved)
        napari_viewer.scene.camera.events.orientation.connect(self._turned)

    def event(self, event: QEvent | None) -> bool:
        """Qt's hook: napari takes a widget out of its dock without closing it."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close()
        return super().event(event)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Qt's hook: only now the canvases know their size."""
        super().showEvent(event)
        QTimer.singleShot(0, self._fit)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Qt's hook: disconnect from the viewer."""
        if self.planes:
            self.crosshair.let_go()
            self.viewer.mouse_drag_callbacks.remove(self._click)
            self.viewer.layers.events.inserted.disconnect(self._inserted)
            self.viewer.layers.events.removed.disconnect(self._removed)
            self.viewer.dims.events.point.disconnect(self._moved)
            self.viewer.scene.camera.events.orientation.disconnect(self._turned)
        while self.planes:
            self.planes.popitem()[1].close()
        super().closeEvent(event)

    def _fit(self) -> None:
        for plane in self.planes.values():
            plane.model.reset_view()

    def _inserted(self, event: Any) -> None:
        for plane in self.planes.values():
            first = not plane.copies
            plane.add(event.value)
            if first:
                plane.model.reset_view()

    def _removed(self, event: Any) -> None:
        for plane in self.planes.values():
            plane.remove(event.value)

    def _moved(self) -> None:
        for plane in self.planes.values():
            plane.follow_point()

    def _turned(self) -> None:
        for plane in self.planes.values():
            plane.follow_camera()
