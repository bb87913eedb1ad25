"""Letters at the edges of a canvas, always those of what it shows."""

from typing import TYPE_CHECKING

from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel

from napari_voxpool.letters import edges_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

_MARGIN = 6
_STYLE = "color: white; background: transparent; font: bold 14pt;"


class Letters(QObject):
    """Draws R, L, A, P, S, I over a canvas.

    Args:
        model: What the canvas shows.
        qt_viewer: The canvas's widget.
    """

    def __init__(self, model: "ViewerModel", qt_viewer: QtViewer) -> None:
        canvas = qt_viewer.canvas.native
        super().__init__(canvas)
        self.model = model
        self._canvas = canvas
        self.labels = {edge: QLabel(canvas) for edge in ("top", "bottom", "left", "right")}
        for label in self.labels.values():
            label.setStyleSheet(_STYLE)
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        canvas.installEventFilter(self)
        dims, camera = model.dims.events, model.scene.camera.events
        self._events = (dims.order, dims.ndisplay, dims.ndim, camera.orientation)
        for event in self._events:
            event.connect(self.update)
        self.update()

    def let_go(self) -> None:
        """Follow the model no longer."""
        for event in self._events:
            event.disconnect(self.update)
        self._canvas.removeEventFilter(self)

    def update(self) -> None:
        """Show the letters of what is shown now."""
        edges = edges_of(self.model)
        for edge, label in self.labels.items():
            label.setText("" if edges is None else getattr(edges, edge))
            label.setVisible(edges is not None)
        self._place()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Qt's hook: stay at the edges when the canvas changes its size; shown for the first time, fonts are known."""
        if event is not None and event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self._place()
        return False

    def _place(self) -> None:
        width, height = self._canvas.width(), self._canvas.height()
        for edge, label in self.labels.items():
            label.adjustSize()
            across, down = (width - label.width()) // 2, (height - label.height()) // 2
            x = {"left": _MARGIN, "right": width - label.width() - _MARGIN}.get(edge, across)
            y = {"top": _MARGIN, "bottom": height - label.height() - _MARGIN}.get(edge, down)
            label.move(x, y)
