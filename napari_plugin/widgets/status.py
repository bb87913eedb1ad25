"""The panel's last line: what just happened, in one sentence, with the details of a failure behind a button."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMessageBox, QPushButton, QWidget

from napari_voxpool.failures import details_of, sentence_of


class StatusLine(QWidget):
    """Says one sentence at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.label = QLabel()
        self.details_button = QPushButton("Details …")
        self.error: BaseException | None = None
        self.label.setWordWrap(True)
        # two lines always: what is above must not move when a sentence is longer
        self.label.setMinimumHeight(2 * self.label.fontMetrics().lineSpacing())
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.label.setAccessibleName("What just happened")
        self.details_button.hide()
        self.details_button.clicked.connect(self.show_details)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label, 1)
        layout.addWidget(self.details_button)

    def text(self) -> str:
        """The sentence that is shown."""
        return self.label.text()

    def say(self, sentence: str, error: BaseException | None = None) -> None:
        """Show a sentence, and a button for the details of the error that it is about."""
        self.error = error
        self.label.setText(sentence[:1].upper() + sentence[1:])
        self.details_button.setVisible(error is not None)

    def explain(self, error: BaseException) -> None:
        """Show what went wrong."""
        self.say(sentence_of(error), error)

    def show_details(self) -> None:
        """Show where in the program the last failure happened, to be copied into a report."""
        if self.error is None:
            return
        box = QMessageBox(self)
        box.setWindowTitle("Details")
        box.setText(self.text())
        box.setDetailedText(details_of(self.error))
        box.exec()
