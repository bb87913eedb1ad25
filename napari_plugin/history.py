"""Edits of a label map that can be undone and done again, as many as there are."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Edit:
    """What one action changed.

    Attributes:
        text: What a person would call it: "supervoxel 961: cortical GM".
        where: Flat indices of the voxels, none twice.
        before: Their class ids before.
        after: Their class ids after.
    """

    text: str
    where: np.ndarray
    before: np.ndarray
    after: np.ndarray


class History:
    """Edits done, and edits undone that can be done again."""

    def __init__(self) -> None:
        self.done: list[Edit] = []
        self.undone: list[Edit] = []

    def add(self, edit: Edit) -> None:
        """Remember an edit; what was undone before it cannot be done again."""
        self.done.append(edit)
        self.undone.clear()

    def undo(self) -> Edit | None:
        """Take back the last edit: the edit that changes the labels back, or None where there is none."""
        if not self.done:
            return None
        edit = self.done.pop()
        self.undone.append(edit)
        return Edit(edit.text, edit.where, edit.after, edit.before)

    def redo(self) -> Edit | None:
        """Do the last edit that was undone again, or None where there is none."""
        if not self.undone:
            return None
        edit = self.undone.pop()
        self.done.append(edit)
        return edit
