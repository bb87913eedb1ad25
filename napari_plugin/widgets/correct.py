"""Section "Correct": the tool in the hand, the tissue it gives, how large its supervoxels are, undo and redo."""

from collections.abc import Callable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_voxpool.history import Edit
from napari_voxpool.regions import COARSER
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import in_thread
from napari_voxpool.widgets.tools import NAVIGATE, TOOLS, VOXELS, Tools
from voxpool.errors import VoxpoolError

SIZES = ("fine", "medium", "coarse")
TOLERANCE_STEPS = 20
"""The slider's steps; the last means a difference of one spread of brightness."""


class CorrectSection(QWidget):
    """Hands the mouse a tool, and takes edits back.

    Signals:
        edited: After every change of the labels.

    Args:
        status: Where things are told.
    """

    edited = Signal()

    def __init__(self, status: StatusLine) -> None:
        super().__init__()
        self.status = status
        self.layers: SessionLayers | None = None
        self.tools: Tools | None = None
        self.buttons = {tool: QPushButton(tool) for tool in TOOLS}
        self.tissue = QComboBox()
        self.size = QSlider(Qt.Orientation.Horizontal)
        self.size_name = QLabel(SIZES[0])
        self.similar = QCheckBox("Similar neighbours")
        self.tolerance = QSlider(Qt.Orientation.Horizontal)
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        self.count, self.hovered = QLabel(), QLabel()
        self._arrange()
        for tool, button in self.buttons.items():
            button.clicked.connect(lambda _=False, tool=tool: self.take(tool))
        self.tissue.currentIndexChanged.connect(lambda _: self._set_tissue())
        self.size.valueChanged.connect(self._set_size)
        self.similar.toggled.connect(lambda _: self._set_tolerance())
        self.tolerance.valueChanged.connect(lambda _: self._set_tolerance())
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)

    def edit_session(self, layers: SessionLayers) -> None:
        """Correct a new result."""
        if self.tools is not None:
            self.tools.preview.hide()
        self.layers = layers
        self.tools = Tools(layers, self._edited, self.status, self.hovered.setText)
        self.tissue.clear()
        for label, name in layers.session.about.label_names.items():
            self.tissue.addItem("background" if label == 0 else name, label)
        self.tissue.setCurrentIndex(1)
        has_regions = layers.session.correction.regions is not None
        for tool, button in self.buttons.items():
            button.setEnabled(has_regions or tool in (NAVIGATE, VOXELS))
        self.setEnabled(True)
        self.size.setValue(0)
        self.similar.setChecked(False)
        self._prepare(layers)
        self.take(NAVIGATE)
        self._show_state()

    def take(self, tool: str) -> None:
        """Take a tool into the hand."""
        if self.tools is None or self.layers is None or not self.layers.there:
            return
        self.layers.viewer.layers.selection.active = self.layers.tissues
        self.tools.take(tool)
        self.buttons[tool].setChecked(True)

    def choose(self, label: int) -> None:
        """Choose the tissue that is given, if there is one of this number."""
        if self.tissue.findData(label) >= 0:
            self.tissue.setCurrentIndex(self.tissue.findData(label))

    def point_at(self, number: int) -> None:
        """Outline a supervoxel, until the mouse points at another."""
        if self.tools is not None:
            self.tools.preview.show([number])

    def undo(self) -> None:
        """Take back the last edit."""
        if self.layers is not None:
            self._step(self.layers.session.undo)

    def redo(self) -> None:
        """Do the last edit that was undone again."""
        if self.layers is not None:
            self._step(self.layers.session.redo)

    def _step(self, act: Callable[[], Edit | None]) -> None:
        try:
            self._edited(act())
        except VoxpoolError as error:
            self.status.explain(error)

    def _arrange(self) -> None:
        group = QButtonGroup(self)
        tools = QGridLayout()
        for number, button in enumerate(self.buttons.values()):
            button.setCheckable(True)
            group.addButton(button)
            tools.addWidget(button, *divmod(number, 3))
        self.size.setRange(0, len(COARSER))
        self.tolerance.setRange(1, TOLERANCE_STEPS)
        self.tolerance.setValue(TOLERANCE_STEPS // 4)
        sizes, likes, steps = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        for layout, widgets in (
            (sizes, (self.size, self.size_name)),
            (likes, (self.similar, self.tolerance)),
            (steps, (self.undo_button, self.redo_button)),
        ):
            for widget in widgets:
                layout.addWidget(widget)
        form = QFormLayout()
        form.addRow("Tissue", self.tissue)
        form.addRow("Supervoxels", sizes)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(tools)
        layout.addLayout(form)
        layout.addLayout(likes)
        layout.addLayout(steps)
        layout.addWidget(self.hovered)
        layout.addWidget(self.count)
        self.count.setWordWrap(True)
        for label, lines in ((self.hovered, 1), (self.count, 2)):  # their words must not move what is below
            label.setMinimumHeight(lines * label.fontMetrics().lineSpacing())
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.tissue.setAccessibleName("Tissue to give")
        self.size.setAccessibleName("Size of supervoxels")
        self.tolerance.setAccessibleName("How alike neighbours must be")
        self.setEnabled(False)

    def _prepare(self, layers: SessionLayers) -> None:
        """Have the larger supervoxels and the neighbours found, in a thread; until then clicks mean fine ones."""
        for widget in (self.size, self.similar, self.tolerance):
            widget.setEnabled(False)
        regions = layers.session.correction.regions
        if regions is None:
            return

        def ready(_: None) -> None:
            if self.layers is layers:
                for widget in (self.size, self.similar, self.tolerance):
                    widget.setEnabled(True)

        in_thread(self, regions.prepare, ready, failed=self.status.explain)

    def _set_tissue(self) -> None:
        label = self.tissue.currentData()
        if self.tools is not None and label is not None:
            self.tools.choose(label)

    def _set_size(self, level: int) -> None:
        self.size_name.setText(SIZES[level])
        if self.tools is not None:
            self.tools.level = level
            self.tools.show_preview()

    def _set_tolerance(self) -> None:
        if self.tools is not None:
            share = self.tolerance.value() / TOLERANCE_STEPS
            self.tools.tolerance = share if self.similar.isChecked() else None
            self.tools.show_preview()

    def _edited(self, edit: Edit | None) -> None:
        if self.layers is None:
            return
        self.layers.refresh(edit)
        self._show_state()
        if edit is not None:
            if self.tools is not None:
                self.tools.show_preview()
            self.edited.emit()

    def _show_state(self) -> None:
        """Say what undo and redo would do."""
        assert self.layers is not None  # called for a session
        history = self.layers.session.correction.history
        for button, word, edits in (
            (self.undo_button, "Undo", history.done),
            (self.redo_button, "Redo", history.undone),
        ):
            button.setEnabled(bool(edits))
            button.setToolTip(f"{word} {edits[-1].text}" if edits else "")
        last = f"; the last: {history.done[-1].text}" if history.done else ""
        edits = len(history.done)
        self.count.setText(f"{edits} correction{'' if edits == 1 else 's'}, each saved at once{last}" if edits else "")
