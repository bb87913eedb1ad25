"""The panel: open, segment, review, correct, export, one below the other."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QComboBox, QGroupBox, QMessageBox, QScrollArea, QSlider, QVBoxLayout, QWidget

from napari_voxpool.display import shown_by
from napari_voxpool.job import Job, Outcome
from napari_voxpool.journal import fingerprint
from napari_voxpool.programs import load_programs
from napari_voxpool.session import SegmentationSession, stored_session
from napari_voxpool.widgets.binding import protect_none
from napari_voxpool.widgets.correct import CorrectSection
from napari_voxpool.widgets.export import ExportSection
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.model import ModelSection
from napari_voxpool.widgets.review import ReviewSection
from napari_voxpool.widgets.run import RunSection
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import ignored, in_thread
from napari_voxpool.widgets.tools import BRUSH, FILL, NAVIGATE, PICK, VOXELS
from napari_voxpool.widgets.view import ViewSection
from napari_voxpool.widgets.volume import VolumeSection
from voxpool.errors import InputError, VoxpoolError

if TYPE_CHECKING:
    from napari.viewer import Viewer

NAME_LETTERS = 12
"""Letters of a name that the lists show at least."""

TOOL_KEYS = {"C": NAVIGATE, "V": PICK, "B": BRUSH, "F": FILL, "X": VOXELS}


class Panel(QWidget):
    """Brings a scan from its file to an exported, corrected segmentation.

    Args:
        napari_viewer: The viewer that the panel belongs to.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        protect_none()
        self.viewer = napari_viewer
        self.layers: SessionLayers | None = None
        self._prints: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self.status = StatusLine()
        self.volume = VolumeSection(napari_viewer, self.status)
        self.view = ViewSection(napari_viewer, lambda: self.volume.image.value)
        self.model = ModelSection(self.volume, self.status)
        self.run = RunSection(self.volume, self.model, self.status, self._may_replace)
        self.review = ReviewSection(napari_viewer, self.status)
        self.correct = CorrectSection(self.status)
        self.export = ExportSection(self.status)
        inside = QWidget()
        column = QVBoxLayout(inside)
        for title, section in {
            "Volume": self.volume,
            "View": self.view,
            "Model": self.model,
            "Review": self.review,
            "Correct": self.correct,
            "Export": self.export,
        }.items():
            box = QGroupBox(title)
            QVBoxLayout(box).addWidget(section)
            column.addWidget(box)
        column.addStretch()
        self._scroll, self._inside = QScrollArea(), inside
        self._scroll.setWidgetResizable(True)
        self._scroll.setWidget(inside)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        for widget in (self.run, self.status):  # in sight wherever the sections are scrolled to
            layout.addWidget(widget)

        self.status.say("Open a volume, or choose one, then press Segment: any MRI of a head will do.")
        self.run.finished.connect(self._show)
        self.volume.image.changed.connect(self._offer)
        self.run.resume_button.clicked.connect(self.resume)
        self.review.chosen.connect(self.correct.choose)
        self.review.gone_to.connect(self.correct.point_at)
        self.correct.edited.connect(self.review.update_numbers)
        self._bind_keys(napari_viewer)
        in_thread(self, load_programs, lambda _: None, failed=ignored)
        self._offer()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Qt's hook: only now the fonts are known, and with them how wide the sections must be."""
        super().showEvent(event)
        for box in self.findChildren(QComboBox):  # the name of a file must not widen the panel
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(NAME_LETTERS)
        for kind in (QComboBox, QSlider):
            for widget in self.findChildren(kind):
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                widget.installEventFilter(self)
        wanted = self._inside.minimumSizeHint().width() + self._scroll.verticalScrollBar().sizeHint().width()
        self._scroll.setMinimumWidth(wanted)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Qt's hook: the wheel scrolls the panel; it must not change what the mouse happens to pass over."""
        if event is not None and event.type() == QEvent.Type.Wheel:
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def _show(self, job: Job, outcome: Outcome) -> None:
        assert outcome.session is not None  # the section says so only then
        self.show_session(job.layer, outcome.session)
        self.run.resume_button.hide()

    def show_session(self, scan: Image, session: SegmentationSession) -> None:
        """Review a result on its scan; the layers of the result before it stay, but are not edited any more."""
        self.layers = SessionLayers(self.viewer, scan, session)
        self._bind_keys(self.layers.tissues)  # napari's own keys of a labels layer would come first
        self.review.show_session(self.layers)
        self.correct.edit_session(self.layers)
        self.export.export_session(self.layers)

    def hide_or_show(self) -> None:
        """Hide the tissues, or show them again."""
        if self.layers is not None:
            self.layers.tissues.visible = not self.layers.tissues.visible

    def _bind_keys(self, owner: "Viewer | Labels") -> None:
        actions: dict[str, Callable[[], None]] = {
            "S": self.run.start,
            "N": self.review.next_doubtful,
            "H": self.hide_or_show,
            "R": self.view.turn,
            "Control-Z": self.correct.undo,
            "Control-Shift-Z": self.correct.redo,
        }
        actions |= {key: partial(self.correct.take, tool) for key, tool in TOOL_KEYS.items()}
        actions |= {f"Alt-{label}": partial(self.correct.choose, label) for label in range(10)}
        for key, act in actions.items():
            owner.bind_key(key, lambda _, act=act: act(), overwrite=True)

    def resume(self) -> None:
        """Go on with the corrections of the chosen image that an earlier session left."""
        scan = self.volume.image.value
        if scan is None:
            return
        self.run.resume_button.setEnabled(False)
        self.status.say("Bringing the corrections back …")

        def show(result: SegmentationSession) -> None:
            self.run.resume_button.setEnabled(True)
            if scan in self.viewer.layers:
                self.show_session(scan, result)
                self.run.resume_button.hide()
                self.status.say(f"{_corrections(result.correction.edits)} are there again.")

        def failed(error: Exception) -> None:
            self.run.resume_button.setEnabled(True)
            self.status.explain(error)

        in_thread(self, _resume, show, scan, failed=failed)

    def _offer(self) -> None:
        """Offer what an earlier session left of the chosen image."""
        self.run.resume_button.hide()
        scan = self.volume.image.value
        if scan is None:
            return

        def offer(print_: str) -> None:
            self._prints[scan] = print_
            stored = stored_session(print_)
            if stored is not None and self.volume.image.value is scan:
                lines = stored[1].lines
                when = datetime.fromtimestamp(lines[-1]["at"]).strftime("%d %b, %H:%M")
                self.run.resume_button.setText(f"Go on with {_corrections(len(lines))} of {when}")
                self.run.resume_button.show()

        in_thread(self, _fingerprint, offer, scan, failed=ignored)

    def _may_replace(self, scan: Image) -> bool:
        """Ask before corrections are lost."""
        try:
            stored = stored_session(self._prints.get(scan) or _fingerprint(scan))
        except (VoxpoolError, OSError, MemoryError):
            return True  # the run says what is wrong with the layer
        if stored is None:
            return True
        count = _corrections(len(stored[1].lines))
        question = QMessageBox(self)
        question.setText(f"Segment anew and drop {count} of this scan?")
        question.setStandardButtons(QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel)
        question.setDefaultButton(QMessageBox.StandardButton.Cancel)
        return bool(question.exec() == QMessageBox.StandardButton.Discard)


def _fingerprint(scan: Image) -> str:
    """What a layer's journal is found by."""
    return fingerprint(shown_by(scan).volume)


def _resume(scan: Image) -> SegmentationSession:
    """A stored result with its edits."""
    shown = shown_by(scan)
    stored = stored_session(fingerprint(shown.volume))
    if stored is None:
        raise InputError("the corrections are gone; segment the scan anew")
    return SegmentationSession.resume(shown, *stored)


def _corrections(count: int) -> str:
    return f"{count} correction" if count == 1 else f"{count} corrections"
