"""Two lines through the point that all planes show, drawn over a canvas."""

from typing import TYPE_CHECKING

import numpy as np
from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QFrame

if TYPE_CHECKING:
    from napari.components import ViewerModel

_STYLE = "background: rgba(86, 180, 233, 150);"


class Crosshair(QObject):
    """Follows the point of a viewer, and where its camera shows it.

    Args:
        model: What the canvas shows.
        qt_viewer: The canvas's widget.
    """

    def __init__(self, model: "ViewerModel", qt_viewer: QtViewer) -> None:
        canvas = qt_viewer.canvas.native
        super().__init__(canvas)
        self.model = model
        self._qt, self._canvas = qt_viewer, canvas
        self.across, self.down = QFrame(canvas), QFrame(canvas)
        for line in (self.across, self.down):
            line.setStyleSheet(_STYLE)
            line.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._soon = QTimer(self)  # the scene's transform follows the camera's events a moment later
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self.update)
        dims, camera = model.dims.events, model.scene.camera.events
        self._events = (dims.point, dims.order, dims.ndisplay, camera.center, camera.zoom, camera.orientation)
        for event in self._events:
            event.connect(self._later)
        canvas.installEventFilter(self)
        self._later()

    def let_go(self) -> None:
        """Follow the model no longer, and leave its canvas."""
        for event in self._events:
            event.disconnect(self._later)
        self._canvas.removeEventFilter(self)
        self._soon.stop()
        del self._qt  # napari wants its viewers gone when they are closed
        for line in (self.across, self.down):
            line.hide()
            line.deleteLater()

    def update(self) -> None:
        """Draw the lines where the point is now; none in 3D and where it is out of sight."""
        flat = self.model.dims.ndisplay == 2 and len(self.model.layers) > 0
        for line in (self.across, self.down):
            line.setVisible(flat)
        if not flat:
            return
        up, across = (self.model.dims.point[axis] for axis in self.model.dims.displayed)
        x, y = self.canvas_position(up, across)
        self.across.setGeometry(0, y, self._canvas.width(), 1)
        self.down.setGeometry(x, 0, 1, self._canvas.height())

    def canvas_position(self, up: float, across: float) -> tuple[int, int]:
        """Pixel of the canvas (x, y) that shows a place of the two displayed axes."""
        mapped = self._qt.canvas.view.scene.transform.map([across, up, 0, 1])
        x, y = np.round(mapped[:2] / mapped[3]).astype(int)
        return int(x), int(y)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Qt's hook: the canvas changed its size."""
        if event is not None and event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self._later()
        return False

    def _later(self) -> None:
        self._soon.start()
