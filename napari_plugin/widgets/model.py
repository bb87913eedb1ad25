"""Section "Model": which model segments, what it is, where it computes, what it will take."""

from pathlib import Path
from typing import cast

from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_voxpool.job import DEVICES
from napari_voxpool.models import BUNDLED, Model, import_model, list_models
from napari_voxpool.settings import setting
from napari_voxpool.trial import foretell
from napari_voxpool.widgets.status import StatusLine
from napari_voxpool.widgets.threads import in_thread
from napari_voxpool.widgets.volume import VolumeSection
from voxpool.data.head_labels import CONVENTIONS

ALL_CLASSES = "all classes"
SETTLED_MS = 300
"""The estimate is made when nothing was chosen for so long."""


class ModelSection(QWidget):
    """Chooses the model; imported ones stay in the list from one start to the next.

    Args:
        volume: Gives the image that the estimate is for.
        status: Where failures are told.
    """

    def __init__(self, volume: VolumeSection, status: StatusLine) -> None:
        super().__init__()
        self.volume = volume
        self.status = status
        self.model = ComboBox(choices=[])
        self.file_button = QPushButton("Import file …")
        self.folder_button = QPushButton("Use a folder …")
        self.convention = ComboBox(choices=[ALL_CLASSES, *CONVENTIONS])
        self.device = ComboBox(choices=DEVICES, value=setting("inference", "device", DEVICES[0]))
        self.facts, self.estimate = QLabel(), QLabel()
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(self._foretell)
        self._arrange()
        self.list(BUNDLED)
        self.model.changed.connect(self._changed)
        self.device.changed.connect(lambda _: self._settled.start())
        volume.image.changed.connect(lambda _: self._settled.start())
        self.file_button.clicked.connect(self.ask_for_file)
        self.folder_button.clicked.connect(self.ask_for_folder)

    @property
    def path(self) -> str:
        """What `Segmenter.load` takes."""
        return str(self.model.value)

    @property
    def chosen_convention(self) -> str | None:
        """How the classes merge, or None to keep them."""
        if not self.convention.enabled or self.convention.value == ALL_CLASSES:
            return None
        return str(self.convention.value)

    def list(self, chosen: Model) -> None:
        """List the models, with one chosen."""
        models = list_models()
        if chosen not in models:
            models.append(chosen)
        self.model.choices = [(model.title, model.path) for model in models]
        self.model.value = chosen.path
        self._changed()  # the same place of the list may mean another model now

    def use(self, path: Path) -> None:
        """Import a file or a folder, and choose it."""
        self.status.say(f"Checking {path.name} …")

        def done(model: Model) -> None:
            self.list(model)
            self.status.say(f"The model {model.title} is ready.")

        in_thread(self, import_model, done, path, failed=self.status.explain)

    def ask_for_file(self) -> None:
        """Ask for the zip file of a model package."""
        chosen, _ = QFileDialog.getOpenFileName(self, "Import a model", "", "Model packages (*.zip)")
        if chosen:
            self.use(Path(chosen))

    def ask_for_folder(self) -> None:
        """Ask for the folder of a model package, or of all folds of a run's variant."""
        chosen = QFileDialog.getExistingDirectory(self, "Use a model's folder, or that of a run's variant")
        if chosen:
            self.use(Path(chosen))

    def _arrange(self) -> None:
        form, buttons = QFormLayout(), QHBoxLayout()
        for label, field in {"Model": self.model, "Classes": self.convention, "Device": self.device}.items():
            form.addRow(label, field.native)
            field.native.setAccessibleName(label)
        self.convention.tooltip = "Keep the bundled model's nine classes, or merge them into CSF, GM and WM"
        self.file_button.setToolTip("Zip file of a model package: its checksums are compared, nothing in it is run")
        self.folder_button.setToolTip("A model package, or a variant of a run: its folds are asked together")
        for button in (self.file_button, self.folder_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addLayout(buttons)
        for label in (self.facts, self.estimate):
            label.setWordWrap(True)
            layout.addWidget(label)

    def _changed(self) -> None:
        self.convention.enabled = self.path == BUNDLED.path
        for label in (self.facts, self.estimate):  # what they said is of another model
            label.setText("")
        self._settled.start()

    def _foretell(self) -> None:
        """Say what the chosen model is and what it will take."""
        layer, path, device = self.volume.image.value, self.path, cast(str, self.device.value)
        self.estimate.setText("" if layer is None else "Trying how fast this computer is …")

        def show(found: tuple[str, str]) -> None:
            if (layer, path, device) == (self.volume.image.value, self.path, self.device.value):
                self.facts.setText(found[0])
                self.estimate.setText(found[1])

        def failed(error: Exception) -> None:
            self.estimate.setText("")
            self.status.explain(error)

        in_thread(self, foretell, show, path, device, layer, failed=failed)
