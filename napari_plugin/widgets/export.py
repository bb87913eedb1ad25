"""Section "Export": labels on the scan's own grid, and a report."""

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QGridLayout, QPushButton, QWidget

from napari_voxpool.export import NOTE, export_dicom, export_labels, export_report
from napari_voxpool.picture import export_picture
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.status import StatusLine
from voxpool.errors import VoxpoolError
from voxpool.io import stem


class ExportSection(QWidget):
    """Writes files of a session; the user names them.

    Args:
        status: Where things are told.
    """

    def __init__(self, status: StatusLine) -> None:
        super().__init__()
        self.status = status
        self.layers: SessionLayers | None = None
        self.labels_button = QPushButton("Labels (NIfTI) …")
        self.report_button = QPushButton("Report (CSV, JSON) …")
        self.picture_button = QPushButton("Picture (PNG) …")
        self.dicom_button = QPushButton("DICOM SEG …")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = (self.labels_button, self.report_button, self.picture_button, self.dicom_button)
        for number, button in enumerate(buttons):
            layout.addWidget(button, *divmod(number, 2))
        self.labels_button.clicked.connect(self.save_labels)
        self.report_button.clicked.connect(self.save_report)
        self.picture_button.clicked.connect(self.save_picture)
        self.dicom_button.clicked.connect(self.save_dicom)
        self.setEnabled(False)

    def export_session(self, layers: SessionLayers) -> None:
        """Export a new result from now on."""
        self.layers = layers
        self.setEnabled(True)
        is_dicom = bool(layers.session.shown.volume.sources)
        self.dicom_button.setEnabled(is_dicom)
        self.dicom_button.setToolTip("" if is_dicom else "The scan is no DICOM series")

    def save_labels(self) -> None:
        """Ask for a file, and write the labels."""
        self._save("Save labels", "_labels.nii.gz", "NIfTI (*.nii.gz *.nii)", (".nii.gz", ".nii"), _labels)

    def save_report(self) -> None:
        """Ask for a file, and write the report."""
        self._save("Save report", "_report.csv", "CSV (*.csv);;JSON (*.json)", (".csv", ".json"), _report)

    def save_dicom(self) -> None:
        """Ask for a file, and write a DICOM segmentation."""
        self._save("Save DICOM SEG", "_tissues.dcm", "DICOM (*.dcm)", (".dcm",), _dicom)

    def save_picture(self) -> None:
        """Ask for a file, and write the three planes through the point that is looked at."""
        self._save("Save picture", "_tissues.png", "PNG (*.png)", (".png",), _picture)

    def _save(
        self,
        title: str,
        ending: str,
        kinds: str,
        suffixes: tuple[str, ...],
        write: Callable[[SessionLayers, Path], None],
    ) -> None:
        if self.layers is None:
            return
        source = self.layers.session.shown.volume.path
        name = "scan" if source is None else stem(source.name)
        proposed = (source.parent if source else Path.home()) / f"{name}{ending}"
        chosen, _ = QFileDialog.getSaveFileName(self, title, str(proposed), kinds)
        if not chosen:
            return
        path = Path(chosen)
        if not path.name.endswith(suffixes):
            path = path.with_name(path.name + suffixes[0])
        try:
            write(self.layers, path)
        except (VoxpoolError, OSError) as error:
            self.status.explain(error)
        else:
            self.status.say(f"Saved {path}; {NOTE}.")


def _labels(layers: SessionLayers, path: Path) -> None:
    export_labels(layers.session, path)


def _dicom(layers: SessionLayers, path: Path) -> None:
    export_dicom(layers.session, path)


def _report(layers: SessionLayers, path: Path) -> None:
    export_report(layers.session, path)


def _picture(layers: SessionLayers, path: Path) -> None:
    shape = layers.session.correction.labels.shape
    here = layers.index_at(layers.viewer.dims.point)
    index = tuple(min(max(place, 0), size - 1) for place, size in zip(here, shape, strict=True))
    export_picture(layers.session, path, index, f"voxpool: {NOTE}")
