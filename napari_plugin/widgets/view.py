"""Section "View": which side is on the left, window presets, further planes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_voxpool.display import body_position, is_radiological, show_as_set, show_neurological, show_radiological
from napari_voxpool.widgets.letters import Letters
from napari_voxpool.widgets.ortho import OrthogonalViews

if TYPE_CHECKING:
    from napari.viewer import Viewer

RADIOLOGICAL, NEUROLOGICAL = "Radiological: right is left", "Neurological: right is right"
PLANES_NAME = "Three planes"
PLANES_SHARE = 0.42
"""Of the window's height, for the planes below the picture."""

_CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}
PRESETS = {"Brain": (2.0, 98.0), "All": (0.0, 100.0), "Dark tissue": (0.0, 60.0), "Bright tissue": (40.0, 99.9)}
"""Window by percentiles of what is not background: MRI has no absolute scale."""


class ViewSection(QWidget):
    """How the scan is shown; never what it is.

    Args:
        viewer: The viewer.
        scan: Gives the image that a preset is for, or None.
    """

    def __init__(self, viewer: "Viewer", scan: Callable[[], Image | None]) -> None:
        super().__init__()
        self.viewer = viewer
        self.scan = scan
        self.convention_button = QPushButton()
        self.ortho_button = QPushButton(PLANES_NAME)
        self.preset = QComboBox()
        self.preset.setAccessibleName("Window")
        self.preset.addItems(["", *PRESETS])
        # plugins get the viewer in a wrapper that hides its canvas
        self._whole = whole = getattr(viewer, "__wrapped__", viewer)
        self.letters = Letters(whole, whole.window._qt_viewer)
        self.here = QLabel()
        buttons, form = QHBoxLayout(), QFormLayout()
        buttons.addWidget(self.convention_button)
        buttons.addWidget(self.ortho_button)
        form.addRow("Window", self.preset)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addLayout(form)
        layout.addWidget(self.here)
        self.convention_button.clicked.connect(self.turn)
        self.ortho_button.clicked.connect(self.show_planes)
        self.preset.currentTextChanged.connect(self.apply_preset)
        show_as_set(viewer)
        self._name_convention()
        viewer.scene.camera.events.orientation.connect(self._name_convention)
        whole.mouse_move_callbacks.append(self._show_place)

    def turn(self) -> None:
        """Change the side of the screen that the patient's right is on; the data stay as they are."""
        (show_neurological if is_radiological(self.viewer) else show_radiological)(self.viewer)

    def show_planes(self) -> None:
        """Open the coronal and the sagittal view, if they are not open."""
        if PLANES_NAME not in self.viewer.window.dock_widgets:
            qt = self._whole.window._qt_window
            for corner, area in _CORNERS.items():  # below the picture alone: the panel needs its height
                qt.setCorner(corner, area)
            dock = self._whole.window.add_dock_widget(OrthogonalViews(self.viewer), name=PLANES_NAME, area="bottom")
            qt.resizeDocks([dock], [round(PLANES_SHARE * qt.height())], Qt.Orientation.Vertical)
            QTimer.singleShot(0, self.viewer.reset_view)  # its canvas is smaller now

    def apply_preset(self, name: str) -> None:
        """Set the window of the chosen image."""
        layer = self.scan()
        if name not in PRESETS or layer is None:
            return
        values = np.asarray(layer.data)
        shown = values[values > values.min()]
        if shown.size:
            low, high = np.percentile(shown, PRESETS[name])
            layer.contrast_limits = (float(low), float(max(high, low + 1e-6)))

    def _name_convention(self) -> None:
        self.convention_button.setText(RADIOLOGICAL if is_radiological(self.viewer) else NEUROLOGICAL)

    def _show_place(self, _: object, event: Any) -> None:
        """Say where in the body the mouse points: napari's own status knows nothing of oblique scans."""
        layer = self.scan()
        place = None if layer is None or layer.ndim != len(event.position) else body_position(layer, event.position)
        if place is None:
            self.here.setText("")
            return
        sides = ("LR", "PA", "IS")
        text = ", ".join(f"{side[mm >= 0]} {abs(mm):.1f}" for side, mm in zip(sides, place, strict=True))
        self.here.setText(f"At {text} mm")
