"""Dialog: which of a folder's DICOM series to open."""

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLabel, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from voxpool.io import Series

COLUMNS = ("Series", "Kind", "Slices", "Voxel (mm)", "Note")


class SeriesChooser(QDialog):
    """Lists series; those that are no volume say why and cannot be chosen.

    Args:
        series: What the folder holds.
        parent: The window it belongs to.
    """

    def __init__(self, series: Sequence[Series], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a series")
        self.series = list(series)
        self.table = QTreeWidget()
        self.table.setHeaderLabels(COLUMNS)
        self.table.setRootIsDecorated(False)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        for one in self.series:
            voxel = "" if one.geometry is None else " × ".join(f"{size:.2f}" for size in one.geometry.spacing)
            item = QTreeWidgetItem([one.description or one.uid, one.modality, str(len(one.files)), voxel])
            item.setText(len(COLUMNS) - 1, one.problem or "")
            item.setToolTip(len(COLUMNS) - 1, one.problem or "")
            if one.problem is not None:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.table.addTopLevelItem(item)
        for column in range(len(COLUMNS)):
            self.table.resizeColumnToContents(column)
        usable = [number for number, one in enumerate(self.series) if one.problem is None]
        if usable:
            self.table.setCurrentItem(self.table.topLevelItem(usable[0]))
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(bool(usable))
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.table.itemDoubleClicked.connect(lambda item: item.flags() and self.accept())
        layout = QVBoxLayout(self)
        text = "The folder holds several series." if len(usable) > 1 else "No series of the folder is a volume."
        layout.addWidget(QLabel(text))
        layout.addWidget(self.table)
        layout.addWidget(self.buttons)
        self.resize(820, 320)

    def chosen(self) -> Series | None:
        """The series that is marked, if it can be opened."""
        item = self.table.currentItem()
        one = None if item is None else self.series[self.table.indexOfTopLevelItem(item)]
        return one if one is not None and one.problem is None else None


def choose_series(series: Sequence[Series]) -> Series | None:
    """Ask which series to open; None if the user wants none."""
    dialog = SeriesChooser(series)
    return dialog.chosen() if dialog.exec() == QDialog.DialogCode.Accepted else None
