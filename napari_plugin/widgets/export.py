"""Section "Export": labels on the scan's own grid, and a report."""

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_voxpool.export import export_labels, export_report
from napari_voxpool.session import SegmentationSession
from voxpool.errors import VoxpoolError


class ExportSection(QWidget):
    """Writes files of a session; the user names them.

    Args:
        say: Called with a sentence for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say
        self.session: SegmentationSession | None = None
        self.labels_button = QPushButton("Labels (NIfTI) …")
        self.report_button = QPushButton("Report (CSV, JSON) …")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for button in (self.labels_button, self.report_button):
            layout.addWidget(button)
        self.labels_button.clicked.connect(self.save_labels)
        self.report_button.clicked.connect(self.save_report)
        self.setEnabled(False)

    def export_session(self, session: SegmentationSession) -> None:
        """Export a new result from now on."""
        self.session = session
        self.setEnabled(True)

    def save_labels(self) -> None:
        """Ask for a file, and write the labels."""
        self._save("Save labels", "_labels.nii.gz", "NIfTI (*.nii.gz *.nii)", (".nii.gz", ".nii"), export_labels)

    def save_report(self) -> None:
        """Ask for a file, and write the report."""
        self._save("Save report", "_report.csv", "CSV (*.csv);;JSON (*.json)", (".csv", ".json"), export_report)

    def _save(
        self,
        title: str,
        ending: str,
        kinds: str,
        suffixes: tuple[str, ...],
        write: Callable[[SegmentationSession, Path], None],
    ) -> None:
        if self.session is None:
            return
        source = self.session.shown.volume.path
        name = "scan" if source is None else source.name.removesuffix(".gz").removesuffix(".nii")
        proposed = (source.parent if source else Path.home()) / f"{name}{ending}"
        chosen, _ = QFileDialog.getSaveFileName(self, title, str(proposed), kinds)
        if not chosen:
            return
        path = Path(chosen)
        if not path.name.endswith(suffixes):
            path = path.with_name(path.name + suffixes[0])
        try:
            write(self.session, path)
        except (VoxpoolError, OSError) as error:
            self.say(f"{error}.")
        else:
            self.say(f"Saved {path}; research use only, not a medical device.")
