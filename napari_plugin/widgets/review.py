"""Section "Review": the table that is also the legend, a reference to compare with, borders and doubt."""

from typing import TYPE_CHECKING, cast

import numpy as np
from magicgui.widgets import ComboBox, create_widget
from napari.layers import Layer
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_voxpool.reference import reference_of, surface_distances
from napari_voxpool.tissues import colormap_of, label_colours
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import in_thread
from voxpool.errors import VoxpoolError

if TYPE_CHECKING:
    from napari.viewer import Viewer

COLUMNS = ("Tissue", "mL", "%", "Dice", "HD95")
NAME, ML, SHARE, DICE, HD95 = range(5)
SETTLED_MS = 800
"""Surface distances are measured when the labels have not changed for so long."""


class ReviewSection(QWidget):
    """Shows what a session found.

    Signals:
        chosen: Class id of the row that was clicked.
        gone_to: Number of the doubtful supervoxel that is shown.

    Args:
        viewer: The viewer.
        status: Where things are told.
    """

    chosen = Signal(int)
    gone_to = Signal(int)

    def __init__(self, viewer: "Viewer", status: StatusLine) -> None:
        super().__init__()
        self.viewer = viewer
        self.status = status
        self.layers: SessionLayers | None = None
        self.table = QTreeWidget()
        self.reference = cast(ComboBox, create_widget(annotation=Layer, options={"nullable": True}))
        self.ceiling = QLabel()
        self.borders = QCheckBox("Supervoxel borders")
        self.doubt = QCheckBox("Doubt")
        self.next_button = QPushButton("Next doubtful")
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(self._measure_surfaces)
        self._arrange()
        self.table.itemChanged.connect(self._show_or_hide)
        self.table.itemClicked.connect(lambda item, _: self.chosen.emit(item.data(NAME, Qt.ItemDataRole.UserRole)))
        self.reference.changed.connect(self._compare)
        self.borders.toggled.connect(lambda on: self.layers and self.layers.show_borders(on))
        self.doubt.toggled.connect(lambda on: self.layers and self.layers.show_doubt(on))
        self.next_button.clicked.connect(self.next_doubtful)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.reference.reset_choices)

    def show_session(self, layers: SessionLayers) -> None:
        """Show a new result."""
        self.layers = layers
        correction = layers.session.correction
        for widget in (self.borders, self.doubt, self.next_button):
            widget.setEnabled(correction.regions is not None)
        for box in (self.borders, self.doubt):
            box.setChecked(False)
        self.reference.value = None
        self._fill_table()

    def update_numbers(self) -> None:
        """Show the volumes and scores as they are now."""
        if self.layers is None:
            return
        for number, row in enumerate(self.layers.session.correction.rows()):
            item = self.table.topLevelItem(number)
            item.setText(ML, f"{row.ml:.2f}")
            item.setText(SHARE, f"{row.share:.1%}".rstrip("%"))
            item.setText(DICE, "" if row.dice is None else "–" if np.isnan(row.dice) else f"{row.dice:.3f}")
            item.setText(HD95, "" if row.dice is None else "…")
        if self.layers.session.correction.reference is not None:
            self._settled.start()

    def next_doubtful(self) -> None:
        """Go to the next supervoxel by doubt."""
        if self.layers is None:
            return
        regions = self.layers.session.correction.regions
        number = self.layers.session.next_doubtful()
        if regions is None or number is None:
            return
        index = regions.centre(number)
        self.layers.go_to(index)
        self.gone_to.emit(number)
        name = self.layers.session.about.label_names[int(self.layers.session.correction.labels[index])]
        self.status.say(f"Supervoxel {number} is {name}; {regions.uncertainty[number]:.0%} of it should be wrong.")

    def _measure_surfaces(self) -> None:
        """Measure HD95 in a thread, on copies, and show it if nothing has changed meanwhile."""
        if self.layers is None or self.layers.session.correction.reference is None:
            return
        layers, correction = self.layers, self.layers.session.correction
        labels, reference = correction.labels.copy(), correction.reference

        def show(distances: dict[str, float]) -> None:
            if self.layers is not layers or correction.reference is not reference:
                return
            if self._settled.isActive() or not np.array_equal(labels, correction.labels):
                return
            for number in range(self.table.topLevelItemCount()):
                item = self.table.topLevelItem(number)
                distance = distances[item.text(NAME)]
                item.setText(HD95, "–" if np.isnan(distance) else f"{distance:.1f}")

        spacing = tuple(float(step) for step in layers.tissues.scale)
        args = labels, reference, correction.label_names, spacing
        in_thread(self, surface_distances, show, *args, failed=self.status.explain)

    def _arrange(self) -> None:
        self.table.setHeaderLabels(COLUMNS)
        self.table.headerItem().setToolTip(HD95, "95th percentile Hausdorff distance to the reference, in mm")
        self.table.setRootIsDecorated(False)
        self.table.setAccessibleName("Tissues")
        form = QFormLayout()
        form.addRow("Reference", self.reference.native)
        self.reference.native.setAccessibleName("Reference")
        self.reference.tooltip = "Label map to compare with: Dice in the table follows every edit"
        boxes = QHBoxLayout()
        for widget in (self.borders, self.doubt, self.next_button):
            widget.setEnabled(False)
            boxes.addWidget(widget)
        self.ceiling.setWordWrap(True)
        self.ceiling.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(form)
        layout.addWidget(self.ceiling)
        layout.addLayout(boxes)
        self.reference.reset_choices()

    def _fill_table(self) -> None:
        assert self.layers is not None  # called for a session
        names = self.layers.session.about.label_names
        colours = label_colours(names)
        self.table.blockSignals(True)
        self.table.clear()
        for label, name in names.items():
            if label == 0:
                continue
            swatch = QPixmap(12, 12)
            swatch.fill(QColor(colours[label]))
            item = QTreeWidgetItem([name])
            item.setIcon(NAME, QIcon(swatch))
            item.setCheckState(NAME, Qt.CheckState.Checked)
            item.setData(NAME, Qt.ItemDataRole.UserRole, label)
            for column in (ML, SHARE, DICE, HD95):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            self.table.addTopLevelItem(item)
        self.update_numbers()
        for column in range(len(COLUMNS)):
            self.table.resizeColumnToContents(column)
        self.table.blockSignals(False)

    def _show_or_hide(self, item: QTreeWidgetItem, column: int) -> None:
        """Draw only the tissues that are ticked."""
        if column != NAME or self.layers is None:
            return
        rows = [self.table.topLevelItem(number) for number in range(self.table.topLevelItemCount())]
        hidden = [
            row.data(NAME, Qt.ItemDataRole.UserRole) for row in rows if row.checkState(NAME) != Qt.CheckState.Checked
        ]
        self.layers.tissues.colormap = colormap_of(self.layers.session.about.label_names, hidden)

    def _compare(self) -> None:
        if self.layers is None:
            return
        correction = self.layers.session.correction
        layer, labels = self.reference.value, None
        if layer in (self.layers.tissues, self.layers.scan):
            self.status.say("This layer belongs to the result itself; choose another as reference.")
            layer = None
        try:
            if layer is not None:
                labels, resampled = reference_of(layer, self.layers.scan, self.layers.session.shown)
                if resampled:
                    self.status.say(f"{layer.name} lies on another grid: it is compared by its nearest voxels.")
            correction.compare_with(labels)
        except VoxpoolError as error:
            correction.compare_with(None)
            self.status.explain(error)
        best = correction.ceiling()
        self.ceiling.setVisible(best is not None)
        if best is not None:
            listed = ", ".join(f"{name} {value:.3f}" for name, value in best.items())
            self.ceiling.setText(f"Whole supervoxels can reach Dice {listed}.")
        self.update_numbers()
