"""Section "Segment": choose image, model and device, run, cancel."""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit, create_widget
from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_voxpool.job import CANCELLED, DEVICES, Job, Outcome, new_job
from voxpool.data.head_labels import CONVENTIONS
from voxpool.errors import UsageError

if TYPE_CHECKING:
    from napari.viewer import Viewer

POLL_MS = 50
ALL_CLASSES = "all classes"


class RunSection(QWidget):
    """Starts one segmentation at a time, in a thread, and shows how far it is.

    Signals:
        finished: The job and its `Outcome`, when a segmentation gave a result.

    Args:
        viewer: The viewer whose image layers can be chosen.
        may_replace: Asked whether the corrections of an image, if there are some, may be dropped.
    """

    finished = Signal(object, object)

    def __init__(self, viewer: "Viewer", may_replace: Callable[[Image], bool]) -> None:
        super().__init__()
        self.viewer = viewer
        self.may_replace = may_replace
        self.job: Job | None = None
        self.image = cast(ComboBox, create_widget(annotation=Image))
        self.package = FileEdit(mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True)
        self.convention = ComboBox(choices=[ALL_CLASSES, *CONVENTIONS])
        self.device = ComboBox(choices=DEVICES)
        self.resume_button = QPushButton()
        self.run_button = QPushButton("Segment")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.status = QLabel("Choose a volume. Without a model package, any MRI of a head is segmented.")
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._show_progress)
        self._arrange()

        self.run_button.clicked.connect(self.start)
        self.cancel_button.clicked.connect(self.cancel)
        self.package.changed.connect(self._allow_convention)
        layers = viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self.image.reset_choices)

    def start(self) -> None:
        """Start a run with what the fields say."""
        if self.job is not None:
            return
        convention = self.convention.value if self.convention.enabled else ALL_CLASSES
        try:
            job = new_job(
                self.image.value,
                str(self.package.value or ""),
                self.device.value,
                None if convention == ALL_CLASSES else convention,
            )
        except UsageError as error:
            self.say(f"{error}.")
            return
        if not self.may_replace(job.layer):
            return
        self.job = job
        # The panel may be closed while the thread works; then nobody waits for the result.
        self.destroyed.connect(job.cancel)
        self._running(True)
        self.say("Starting …")
        worker = create_worker(job.run, _start_thread=False)
        worker.returned.connect(self._end)
        worker.errored.connect(self._fail)
        worker.start()

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self.job is not None:
            self.job.cancel()
            self._show_progress()

    def say(self, sentence: str) -> None:
        """Show a sentence in the status line."""
        self.status.setText(sentence[:1].upper() + sentence[1:])

    def _arrange(self) -> None:
        form = QFormLayout()
        fields = {
            "Image": self.image,
            "Model package": self.package,
            "Classes": self.convention,
            "Device": self.device,
        }
        for label, field in fields.items():
            form.addRow(label, field.native)
        self.package.tooltip = "Folder of a model package; empty: the model that comes with voxpool"
        self.convention.tooltip = "Keep the bundled model's nine classes, or merge them into CSF, GM and WM"
        buttons = QHBoxLayout()
        self.resume_button.hide()
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        self.status.setWordWrap(True)
        self.bar.setRange(0, 100)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.resume_button)
        layout.addLayout(buttons)
        for widget in (self.bar, self.status):
            layout.addWidget(widget)
        self.image.reset_choices()
        self._running(False)

    def _allow_convention(self) -> None:
        self.convention.enabled = not self.package.value

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

    def _show_progress(self) -> None:
        if self.job is not None:
            self.bar.setValue(round(100 * self.job.fraction))
            self.say("Stopping …" if self.job.cancelled else f"{self.job.stage} …")

    def _end(self, outcome: Outcome) -> None:
        job = self.job
        assert job is not None  # set from the start of a run to its end
        if job.cancelled:  # pressed when the thread was done, but before anybody saw its result
            outcome = CANCELLED
        message = outcome.message
        if outcome.session is not None and job.layer not in self.viewer.layers:
            message = f"The layer {job.layer.name} was closed, so its result was dropped."
        elif outcome.session is not None:
            self.finished.emit(job, outcome)
        self._running(False)
        self.say(message)

    def _fail(self, error: Exception) -> None:
        """An error that nobody foresaw: napari shows its traceback, the panel must not stay busy."""
        self._running(False)
        self.say(f"The segmentation failed unexpectedly: {error}")
