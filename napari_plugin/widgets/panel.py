"""The panel: segment, review, correct, export, one below the other."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGroupBox, QMessageBox, QScrollArea, QVBoxLayout, QWidget

from napari_voxpool.display import shown_by
from napari_voxpool.job import Job, Outcome
from napari_voxpool.journal import fingerprint
from napari_voxpool.session import SegmentationSession, stored_session
from napari_voxpool.widgets.correct import CorrectSection
from napari_voxpool.widgets.export import ExportSection
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.review import ReviewSection
from napari_voxpool.widgets.run import RunSection
from napari_voxpool.widgets.threads import in_thread
from napari_voxpool.widgets.tools import BRUSH, FILL, NAVIGATE, PICK, VOXELS
from napari_voxpool.widgets.view import ViewSection
from voxpool.errors import VoxpoolError

if TYPE_CHECKING:
    from napari.viewer import Viewer

TOOL_KEYS = {"C": NAVIGATE, "V": PICK, "B": BRUSH, "F": FILL, "X": VOXELS}


class Panel(QWidget):
    """Brings a scan from its file to an exported, corrected segmentation.

    Args:
        napari_viewer: The viewer that the panel belongs to.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.layers: SessionLayers | None = None
        self._prints: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self.run = RunSection(napari_viewer, self._may_replace)
        self.view = ViewSection(napari_viewer, lambda: self.run.image.value)
        self.review = ReviewSection(napari_viewer, self.run.say)
        self.correct = CorrectSection(self.run.say)
        self.export = ExportSection(self.run.say)
        inside = QWidget()
        column = QVBoxLayout(inside)
        for title, section in {
            "View": self.view,
            "Segment": self.run,
            "Review": self.review,
            "Correct": self.correct,
            "Export": self.export,
        }.items():
            box = QGroupBox(title)
            QVBoxLayout(box).addWidget(section)
            column.addWidget(box)
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setWidget(inside)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumWidth(inside.sizeHint().width() + scroll.verticalScrollBar().sizeHint().width())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)

        self.run.finished.connect(self._show)
        self.run.image.changed.connect(self._offer)
        self.run.resume_button.clicked.connect(self.resume)
        self.review.chosen.connect(self.correct.choose)
        self.correct.edited.connect(self.review.update_numbers)
        self._bind_keys(napari_viewer)
        self._offer()

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
        scan = self.run.image.value
        if scan is None:
            return
        self.run.resume_button.setEnabled(False)
        self.run.say("Bringing the corrections back …")

        def show(result: SegmentationSession | str) -> None:
            self.run.resume_button.setEnabled(True)
            if isinstance(result, str):
                self.run.say(result)
            elif scan in self.viewer.layers:
                self.show_session(scan, result)
                self.run.resume_button.hide()
                self.run.say(f"{_corrections(result.correction.edits)} are there again.")

        in_thread(self, _resume, show, scan)

    def _offer(self) -> None:
        """Say what the chosen image is, and offer what an earlier session left of it."""
        self.view.show_facts()
        self.run.resume_button.hide()
        scan = self.run.image.value
        if scan is None:
            return

        def offer(print_: str | None) -> None:
            if print_ is None:
                return  # a run says what is wrong with the layer
            self._prints[scan] = print_
            stored = stored_session(print_)
            if stored is not None and self.run.image.value is scan:
                lines = stored[1].lines
                when = datetime.fromtimestamp(lines[-1]["at"]).strftime("%d %b, %H:%M")
                self.run.resume_button.setText(f"Go on with {_corrections(len(lines))} of {when}")
                self.run.resume_button.show()

        in_thread(self, _fingerprint, offer, scan)

    def _may_replace(self, scan: Image) -> bool:
        """Ask before corrections are lost."""
        print_ = self._prints.get(scan) or _fingerprint(scan)
        stored = None if print_ is None else stored_session(print_)
        if stored is None:
            return True
        count = _corrections(len(stored[1].lines))
        question = QMessageBox(self)
        question.setText(f"Segment anew and drop {count} of this scan?")
        question.setStandardButtons(QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel)
        question.setDefaultButton(QMessageBox.StandardButton.Cancel)
        return bool(question.exec() == QMessageBox.StandardButton.Discard)


def _fingerprint(scan: Image) -> str | None:
    """What a layer's journal is found by; None if it is no volume that can be segmented."""
    try:
        return fingerprint(shown_by(scan).volume)
    except (VoxpoolError, OSError, MemoryError):
        return None


def _resume(scan: Image) -> SegmentationSession | str:
    """A stored result with its edits, or why it cannot be had."""
    try:
        shown = shown_by(scan)
        stored = stored_session(fingerprint(shown.volume))
        return "The corrections are gone." if stored is None else SegmentationSession.resume(shown, *stored)
    except VoxpoolError as error:
        return f"{error}."


def _corrections(count: int) -> str:
    return f"{count} correction" if count == 1 else f"{count} corrections"
