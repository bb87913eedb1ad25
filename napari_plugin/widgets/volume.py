"""Section "Volume": open a file or a DICOM folder, choose the image, know what it is."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from magicgui.widgets import ComboBox, create_widget
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_voxpool.display import describe, layer_of_volume, show_as_set
from napari_voxpool.widgets.series import choose_series
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import in_thread
from voxpool.io import EXTENSIONS, Series, Volume, count_volumes, list_series, read_series, read_volume, stem

if TYPE_CHECKING:
    from napari.viewer import Viewer

TWO_PLACES = "(E114)"
"""How the error ends that says that sform and qform differ."""


class VolumeSection(QWidget):
    """Opens volumes in a thread and says what they are.

    Args:
        viewer: The viewer that gets the layers, and whose image layers can be chosen.
        status: Where failures are told.
    """

    def __init__(self, viewer: "Viewer", status: StatusLine) -> None:
        super().__init__()
        self.viewer = viewer
        self.status = status
        self.open_button = QPushButton("Open file …")
        self.folder_button = QPushButton("Open DICOM folder …")
        self.image = cast(ComboBox, create_widget(annotation=Image))
        self.facts = QLabel()
        self.facts.setWordWrap(True)
        buttons, form = QHBoxLayout(), QFormLayout()
        buttons.addWidget(self.open_button)
        buttons.addWidget(self.folder_button)
        form.addRow("Image", self.image.native)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addLayout(form)
        layout.addWidget(self.facts)
        self.image.native.setAccessibleName("Image")
        self.open_button.clicked.connect(self.ask_for_file)
        self.folder_button.clicked.connect(self.ask_for_folder)
        self.image.changed.connect(self.show_facts)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.image.reset_choices)
        self.image.reset_choices()
        self.show_facts()

    def show_facts(self) -> None:
        """Say what is known of the chosen image."""
        layer = self.image.value
        self.facts.setText("" if layer is None else describe(layer))

    def ask_for_file(self) -> None:
        """Ask for a file, and open it."""
        kinds = " ".join(f"*{ending}" for ending in EXTENSIONS)
        chosen, _ = QFileDialog.getOpenFileName(self, "Open a volume", "", f"Volumes ({kinds});;All files (*)")
        if chosen:
            self.open(Path(chosen))

    def ask_for_folder(self) -> None:
        """Ask for a folder of DICOM files, and open a series of it."""
        chosen = QFileDialog.getExistingDirectory(self, "Open a DICOM folder")
        if chosen:
            self.open(Path(chosen))

    def open(self, path: Path) -> None:
        """Open a file or a folder of DICOM files; what cannot be opened is told, and adds nothing."""
        self.status.say(f"Reading {path.name} …")
        if path.is_dir():
            self._in_thread(list_series, self._choose, path)
        else:
            self._open_file(path)

    def _open_file(self, path: Path, prefer: str | None = None) -> None:
        name = stem(path.name) or path.name
        add = partial(self._add, name=name)

        def count(volumes: int) -> None:
            if volumes == 1:
                self._in_thread(partial(read_volume, path, prefer=prefer), add)
                return
            question = f"{path.name} holds {volumes} volumes. Which one, from 0 to {volumes - 1}?"
            number, sure = QInputDialog.getInt(self, "Choose a volume", question, 0, 0, volumes - 1)
            if sure:
                self._in_thread(partial(read_volume, path, prefer=prefer, volume=number), add)
            else:
                self.status.say("Nothing was opened.")

        def failed(error: Exception) -> None:
            chosen = self._choose_place(path) if prefer is None and str(error).endswith(TWO_PLACES) else None
            if chosen is None:
                self.status.explain(error)
            else:
                self._open_file(path, chosen)

        in_thread(self, partial(count_volumes, path, prefer=prefer), count, failed=failed)

    def _choose_place(self, path: Path) -> str | None:
        """Ask which of a header's two places is right; None for neither."""
        box = QMessageBox(self)
        box.setWindowTitle("Two places")
        box.setText(
            f"The header of {path.name} places it twice, and differently: by its sform and by its qform. Which one is"
            " right? Left and right may depend on it."
        )
        buttons = {box.addButton(form, QMessageBox.ButtonRole.AcceptRole): form for form in ("sform", "qform")}
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.exec()
        return buttons.get(cast(QPushButton, box.clickedButton()))

    def _choose(self, series: Sequence[Series]) -> None:
        usable = [one for one in series if one.problem is None]
        chosen = series[0] if len(series) == 1 or len(usable) == 1 else choose_series(series)
        if chosen is None:
            self.status.say("Nothing was opened.")
            return
        self._in_thread(read_series, partial(self._add, name=chosen.description or "series"), chosen)

    def _add(self, volume: Volume, name: str) -> None:
        data, options, _ = layer_of_volume(volume, name)
        first = not self.viewer.layers
        if first:
            show_as_set(self.viewer)
        layer = self.viewer.add_image(data, **options)
        if first:
            QTimer.singleShot(0, self.viewer.reset_view)  # when the panel has its width
        self.image.value = layer
        self.status.say(f"Opened {name}.")

    def _in_thread(self, work: Callable[..., object], then: Callable[..., None], *arguments: object) -> None:
        in_thread(self, work, then, *arguments, failed=self.status.explain)
