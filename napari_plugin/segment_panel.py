"""The panel "Segment this layer"."""

from typing import TYPE_CHECKING, cast

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit, create_widget
from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_voxpool.display import show_radiological
from napari_voxpool.session import CANCELLED, DEVICES, Job, Outcome, label_colours, labels_layer, new_job
from voxpool.errors import UsageError

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from voxpool.inference import Segmentation

POLL_MS = 50


class SegmentPanel(QWidget):
    """Choose an image layer, and a model package if not the bundled one, segment, see the tissues and their volumes.

    Args:
        napari_viewer: The viewer that the panel belongs to.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None
        show_radiological(napari_viewer)

        self.image = cast(ComboBox, create_widget(annotation=Image))
        self.package = FileEdit(mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True)
        self.device = ComboBox(choices=DEVICES)
        self.run_button = QPushButton("Segment")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.status = QLabel("Choose a volume. Without a model package, any MRI of a head is segmented.")
        self.table = QTreeWidget()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._show_progress)
        self._arrange()

        self.run_button.clicked.connect(self.start)
        self.cancel_button.clicked.connect(self.cancel)
        layers = napari_viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self.image.reset_choices)

    def start(self) -> None:
        """Start a run with what the fields say."""
        try:
            job = new_job(self.image.value, str(self.package.value or ""), self.device.value)
        except UsageError as error:
            self._say(f"{error}.")
            return
        self.job = job
        # The panel may be closed while the thread works; then nobody waits for the result.
        self.destroyed.connect(job.cancel)
        self._running(True)
        self._say("Starting …")
        worker = create_worker(job.run, _start_thread=False)
        worker.returned.connect(self._end)
        worker.errored.connect(self._fail)
        worker.start()

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self.job is not None:
            self.job.cancel()
            self._show_progress()

    def _arrange(self) -> None:
        form = QFormLayout()
        for label, field in (("Image", self.image), ("Model package", self.package), ("Device", self.device)):
            form.addRow(label, field.native)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        self.status.setWordWrap(True)
        self.bar.setRange(0, 100)
        self.table.setHeaderLabels(["Tissue", "Volume (mL)"])
        self.table.setRootIsDecorated(False)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(buttons)
        for widget in (self.bar, self.status, self.table):
            layout.addWidget(widget)
        self.image.reset_choices()
        self._running(False)

    def _running(self, running: bool) -> None:
        self.run_button.setEnabled(not running)
        self.cancel_button.setVisible(running)
        self.bar.setVisible(running)
        self.bar.setValue(0)
        if running:
            self._timer.start()
        else:
            self._timer.stop()
            self.job = None

    def _say(self, sentence: str) -> None:
        self.status.setText(sentence[:1].upper() + sentence[1:])

    def _show_progress(self) -> None:
        if self.job is not None:
            self.bar.setValue(round(100 * self.job.fraction))
            self._say("Stopping …" if self.job.cancelled else f"{self.job.stage} …")

    def _end(self, outcome: Outcome) -> None:
        job = self.job
        assert job is not None  # set from the start of a run to its end
        if job.cancelled:  # pressed when the thread was done, but before anybody saw its result
            outcome = CANCELLED
        message = outcome.message
        if outcome.segmentation is not None:
            if job.layer in self.viewer.layers:
                self._show_result(job, outcome.segmentation)
            else:
                message = f"The layer {job.layer.name} was closed, so its result was dropped."
        self._running(False)
        self._say(message)

    def _fail(self, error: Exception) -> None:
        """An error that nobody foresaw: napari shows its traceback, the panel must not stay busy."""
        self._running(False)
        self._say(f"The segmentation failed unexpectedly: {error}")

    def _show_result(self, job: Job, segmentation: "Segmentation") -> None:
        data, options = labels_layer(job, segmentation)
        self.viewer.add_labels(data, **options)
        colours = label_colours(segmentation.label_names)
        self.table.clear()
        for label, name in segmentation.label_names.items():
            if label:
                swatch = QPixmap(12, 12)
                swatch.fill(QColor(colours[label]))
                row = QTreeWidgetItem([name, f"{segmentation.volumes_ml[name]:.2f}"])
                row.setIcon(0, QIcon(swatch))
                self.table.addTopLevelItem(row)
