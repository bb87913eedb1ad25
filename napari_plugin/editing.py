"""A segmentation under review, without a window: what it holds, and what a person changes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_voxpool.history import Edit, History
from napari_voxpool.regions import Regions
from voxpool.errors import UsageError
from voxpool.supervoxels import oracle_dice


@dataclass(frozen=True)
class Row:
    """What the table says of a tissue.

    Attributes:
        label: Its class id.
        name: Its name.
        voxels: How many voxels it has.
        ml: Its volume in mL.
        share: Of all tissues' volume, 0 to 1.
        dice: Against the reference, NaN where neither has any; None without a reference.
    """

    label: int
    name: str
    voxels: int
    ml: float
    share: float
    dice: float | None


class Correction:
    """Labels that are edited, supervoxel by supervoxel or voxel by voxel; everything can be undone.

    Args:
        labels: Class ids, (S, A, R), uint8; edited in place.
        label_names: Name of each class.
        voxel_ml: Volume of a voxel in mL.
        regions: The supervoxels, or None for a model without.

    Attributes:
        labels: The labels as they are now.
        history: What was done.
        reference: Labels to compare with, or None.
    """

    def __init__(
        self, labels: np.ndarray, label_names: Mapping[int, str], voxel_ml: float, regions: Regions | None
    ) -> None:
        if not labels.flags.c_contiguous:
            raise UsageError("labels must be contiguous to be edited in place; copy them")
        self.labels = labels
        self.label_names = dict(label_names)
        self.regions = regions
        self.history = History()
        self.reference: np.ndarray | None = None
        self._voxel_ml = voxel_ml
        self._model = labels.copy()
        self._flat = labels.reshape(-1)
        self._known = self._flat.copy()  # the labels but for changes from outside
        self._counts = np.bincount(self._flat, minlength=len(self.label_names))
        self._hits = self._targets = np.zeros(0, np.int64)

    @property
    def edits(self) -> int:
        """How many edits make the labels differ from the model's."""
        return len(self.history.done)

    def give(self, ids: Sequence[int], label: int) -> Edit | None:
        """Give whole supervoxels to a tissue.

        Returns:
            What changed, or None if all of it was that tissue before.

        Raises:
            UsageError: If the model has no such tissue.
        """
        name = self._name(label)
        text = f"supervoxel {ids[0]}: {name}" if len(ids) == 1 else f"{len(ids)} supervoxels: {name}"
        return self._change(text, self._of(ids), label)

    def fill(self, index: Sequence[int], label: int) -> Edit | None:
        """Give the connected part that has one tissue at a voxel to another."""
        old = self.labels[tuple(index)]
        parts, _ = ndimage.label(self.labels == old)
        where = np.flatnonzero(parts.reshape(-1) == parts[tuple(index)])
        return self._change(f"part of {self._name(int(old))}: {self._name(label)}", where, label)

    def revert(self, ids: Sequence[int]) -> Edit | None:
        """Give supervoxels back what the model said."""
        where = self._of(ids)
        return self._change("as the model had it", where, self._model.reshape(-1)[where])

    def take_over(self) -> Edit | None:
        """Make an edit of the voxels that were changed from outside, such as by a brush of the viewer's."""
        where = np.flatnonzero(self._flat != self._known)
        after = self._flat[where]
        self._flat[where] = self._known[where]
        return self._change(f"{len(where)} voxels", where, after)

    def undo(self) -> Edit | None:
        """Take back the last edit; returns the change, or None where there is nothing to undo."""
        return self._apply(self.history.undo())

    def redo(self) -> Edit | None:
        """Do the last edit that was undone again; returns the change, or None."""
        return self._apply(self.history.redo())

    def take_back(self) -> None:
        """Undo the last edit for good: it cannot be done again."""
        if self.undo() is not None:
            self.history.undone.pop()

    def compare_with(self, reference: np.ndarray | None) -> None:
        """Take a reference on the same grid, class ids as the labels', or none.

        Raises:
            UsageError: If its shape differs, or it holds a class that the labels do not know.
        """
        if reference is not None:
            if reference.shape != self.labels.shape:
                raise UsageError(f"the reference has the shape {reference.shape}, wanted {self.labels.shape}")
            if not set(np.unique(reference)) <= set(self.label_names):
                raise UsageError(
                    f"the reference holds the labels {', '.join(map(str, np.unique(reference)))}, wanted"
                    f" {', '.join(f'{label} {name}' for label, name in self.label_names.items())}"
                )
            flat = reference.reshape(-1)
            self._targets = np.bincount(flat, minlength=len(self.label_names))
            self._hits = np.bincount(flat[flat == self._flat], minlength=len(self.label_names))
        self.reference = reference

    def ceiling(self) -> dict[str, float] | None:
        """The Dice that each tissue could reach if every supervoxel were one tissue; None without a reference."""
        if self.reference is None or self.regions is None:
            return None
        scores = oracle_dice(self.regions.segments, self.reference, len(self.label_names))
        return {name: float(scores[label]) for label, name in self.label_names.items() if label}

    def rows(self) -> list[Row]:
        """One row per tissue, from counts that every edit keeps: no volume is counted anew."""
        total = max(1, int(self._counts[1:].sum()))
        rows = []
        for label, name in self.label_names.items():
            if label == 0:
                continue
            voxels = int(self._counts[label])
            dice = None
            if self.reference is not None:
                both = voxels + int(self._targets[label])
                dice = 2 * int(self._hits[label]) / both if both else float("nan")
            rows.append(Row(label, name, voxels, voxels * self._voxel_ml, voxels / total, dice))
        return rows

    def _of(self, ids: Sequence[int]) -> np.ndarray:
        if self.regions is None:
            raise UsageError("the model has no supervoxels to correct; take the voxel brush")
        return self.regions.voxels(ids)

    def _name(self, label: int) -> str:
        if label not in self.label_names:
            raise UsageError(f"the model knows no label {label}; take one of {', '.join(self.label_names.values())}")
        return self.label_names[label]

    def _change(self, text: str, where: np.ndarray, after: np.ndarray | int) -> Edit | None:
        before = self._flat[where]
        new = np.broadcast_to(np.asarray(after, before.dtype), before.shape)
        changed = before != new
        if not changed.any():
            return None
        edit = Edit(text, where[changed], before[changed], new[changed])
        self.history.add(edit)
        return self._apply(edit)

    def _apply(self, edit: Edit | None) -> Edit | None:
        if edit is None:
            return None
        self._flat[edit.where] = self._known[edit.where] = edit.after
        classes = len(self.label_names)
        self._counts += np.bincount(edit.after, minlength=classes) - np.bincount(edit.before, minlength=classes)
        if self.reference is not None:
            target = self.reference.reshape(-1)[edit.where]
            for found, sign in ((edit.after, 1), (edit.before, -1)):
                self._hits += sign * np.bincount(target[target == found], minlength=classes)
        return edit
