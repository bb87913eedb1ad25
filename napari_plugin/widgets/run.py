"""Section "Segment": run, see how far it is, cancel."""

from collections.abc import Callable

from napari.layers import Image
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_voxpool.job import CANCELLED, Job, Outcome, new_job
from napari_voxpool.widgets.model import ModelSection
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import in_thread
from napari_voxpool.widgets.volume import VolumeSection
from voxpool.errors import UsageError

POLL_MS = 50


class RunSection(QWidget):
    """Starts one segmentation at a time, in a thread, and shows how far it is.

    Signals:
        finished: The job and its `Outcome`, when a segmentation gave a result.

    Args:
        volume: Gives the image.
        model: Gives the model.
        status: Where the stages and the end are told.
        may_replace: Asked whether the corrections of an image, if there are some, may be dropped.
    """

    finished = Signal(object, object)

    def __init__(
        self,
        volume: VolumeSection,
        model: ModelSection,
        status: StatusLine,
        may_replace: Callable[[Image], bool],
    ) -> None:
        super().__init__()
        self.volume = volume
        self.model = model
        self.status = status
        self.may_replace = may_replace
        self.job: Job | None = None
        self.resume_button = QPushButton()
        self.run_button = QPushButton("Segment")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._show_progress)
        buttons, layout = QHBoxLayout(), QVBoxLayout(self)
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.resume_button)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        self.bar.setRange(0, 100)
        self.bar.setAccessibleName("Progress")
        self.resume_button.hide()
        self._running(False)
        self.run_button.clicked.connect(self.start)
        self.cancel_button.clicked.connect(self.cancel)

    def start(self) -> None:
        """Start a run with what the sections say."""
        if self.job is not None:
            return
        model = self.model
        try:
            job = new_job(self.volume.image.value, model.path, model.device.value, model.chosen_convention)
        except UsageError as error:
            self.status.explain(error)
            return
        if not self.may_replace(job.layer):
            return
        self.job = job
        # The panel may be closed while the thread works; then nobody waits for the result.
        self.destroyed.connect(job.cancel)
        self._running(True)
        self.status.say("Starting …")
        in_thread(self, job.run, self._end, failed=self._fail)

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self.job is not None:
            self.job.cancel()
            self._show_progress()

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
        if self.job is None:
            return
        self.bar.setValue(round(100 * self.job.fraction))
        self.status.say("Stopping …" if self.job.cancelled else f"{self.job.stage} …{self.job.time_left()}")

    def _end(self, outcome: Outcome) -> None:
        job = self.job
        assert job is not None  # set from the start of a run to its end
        if job.cancelled:  # pressed when the thread was done, but before anybody saw its result
            outcome = CANCELLED
        message, error = outcome.message, outcome.error
        if outcome.session is not None and job.layer not in self.volume.viewer.layers:
            message = f"The layer {job.layer.name} was closed, so its result was dropped."
        elif outcome.session is not None:
            self.finished.emit(job, outcome)
        self._running(False)
        self.status.say(message, error)

    def _fail(self, error: Exception) -> None:
        """Nothing is known that ends here, but the panel must not stay busy if something does."""
        self._running(False)
        self.status.explain(error)
