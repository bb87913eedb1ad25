"""A scan with its segmentation under review, without a window: widgets show it and call it, nothing else."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_voxpool.display import Shown
from napari_voxpool.editing import Correction
from napari_voxpool.history import Edit
from napari_voxpool.journal import About, Found, Journal, fingerprint, journal_folder, packed, replay
from napari_voxpool.regions import Regions
from voxpool.errors import ResourceError

if TYPE_CHECKING:
    from voxpool.inference import Segmentation


class SegmentationSession:
    """What a person reviews, corrects and exports. Every edit is in the journal before the next can be made.

    An edit that cannot be kept, because the disk is full, is taken back: each method that edits raises
    `ResourceError` then, and the labels are as they were.

    Args:
        shown: The scan.
        about: Where the result comes from.
        correction: The labels.
        journal: Where edits are written.
    """

    def __init__(self, shown: Shown, about: About, correction: Correction, journal: Journal) -> None:
        self.shown = shown
        self.about = about
        self.correction = correction
        self.journal = journal
        self._doubtful: list[int] = []

    @classmethod
    def begin(cls, shown: Shown, found: "Segmentation", package: Path | str) -> "SegmentationSession":
        """Review a new result; a journal of the same scan is replaced."""
        from voxpool.model_package import weights_sha256

        about = About(
            scan=fingerprint(shown.volume),
            model=Path(package).name,
            model_sha256=weights_sha256(package),
            label_names=found.label_names,
            quality=found.quality,
            warnings=found.warnings,
            started=time.time(),
        )
        arrays = {"labels": np.ascontiguousarray(shown.show(found.labels))}
        if found.segments is not None and found.uncertainty is not None:
            arrays["segments"] = np.ascontiguousarray(shown.show(found.segments))
            arrays["uncertainty"] = found.uncertainty
        return cls.begin_with(shown, about, arrays)

    @classmethod
    def begin_with(cls, shown: Shown, about: About, arrays: dict[str, np.ndarray]) -> "SegmentationSession":
        """Review a result given as arrays in the layer's order: "labels", and perhaps "segments" and "uncertainty"."""
        journal = Journal(journal_folder(about.scan))
        journal.begin(about, arrays)
        return cls(shown, about, _correction(shown, about, arrays), journal)

    @classmethod
    def resume(cls, shown: Shown, journal: Journal, found: Found) -> "SegmentationSession":
        """Review a stored result with its edits.

        Raises:
            InputError: If the journal holds a line that means nothing.
        """
        session = cls(shown, found.about, _correction(shown, found.about, found.arrays), journal)
        replay(found.lines, session.correction)
        return session

    def give(self, ids: Sequence[int], label: int) -> Edit | None:
        """Give supervoxels to a tissue; see `Correction.give`."""
        return self._noted(self.correction.give(ids, label), "give", ids=[int(each) for each in ids], label=label)

    def revert(self, ids: Sequence[int]) -> Edit | None:
        """Give supervoxels back what the model said."""
        return self._noted(self.correction.revert(ids), "revert", ids=[int(each) for each in ids])

    def fill(self, index: Sequence[int], label: int) -> Edit | None:
        """Give a connected part to another tissue; see `Correction.fill`."""
        place = [int(each) for each in index]
        return self._noted(self.correction.fill(place, label), "fill", index=place, label=label)

    def take_over(self) -> Edit | None:
        """Make an edit of what another brush painted; see `Correction.take_over`."""
        edit = self.correction.take_over()
        if edit is None:
            return None
        return self._noted(edit, "paint", where=packed(edit.where), labels=packed(edit.after))

    def undo(self) -> Edit | None:
        """Take back the last edit."""
        return self._noted(self.correction.undo(), "undo")

    def redo(self) -> Edit | None:
        """Do the last edit that was undone again."""
        return self._noted(self.correction.redo(), "redo")

    def describe(self, ids: Sequence[int], index: Sequence[int]) -> str:
        """What supervoxels are: how many, how large, what the voxel at an index is, how doubtful.

        Args:
            ids: The supervoxels, at least one.
            index: Voxel inside one of them.
        """
        regions = self.correction.regions
        assert regions is not None  # who has ids has supervoxels
        chosen = np.asarray(ids)
        sizes = regions.sizes[chosen]
        which = f"Supervoxel {ids[0]}" if len(ids) == 1 else f"{len(ids)} supervoxels"
        name = self.about.label_names[int(self.correction.labels[tuple(index)])]
        doubt = float(np.average(regions.uncertainty[chosen], weights=sizes))
        ml = float(sizes.sum()) * self.shown.volume.geometry.voxel_volume_ml
        return f"{which}, {ml:.2f} mL: {name}, {doubt:.0%} doubtful"

    def next_doubtful(self) -> int | None:
        """The most doubtful supervoxel that was not asked for yet, after the last the first again; None without any."""
        regions = self.correction.regions
        if regions is None:
            return None
        if not self._doubtful:
            self._doubtful = regions.by_doubt()[::-1]
        return self._doubtful.pop() if self._doubtful else None

    def _noted(self, edit: Edit | None, action: str, **details: object) -> Edit | None:
        if edit is None:
            return None
        try:
            self.journal.note(action, **details)
        except ResourceError:
            # what is not kept must not be shown either: a crash would lose it silently
            {"undo": self.correction.redo, "redo": self.correction.undo}.get(action, self.correction.take_back)()
            raise
        return edit


def stored_session(scan: str) -> tuple[Journal, Found] | None:
    """The journal of a scan, by its fingerprint, if there is one with edits."""
    journal = Journal(journal_folder(scan))
    found = journal.read()
    return None if found is None or not found.lines else (journal, found)


def _correction(shown: Shown, about: About, arrays: dict[str, np.ndarray]) -> Correction:
    regions = None
    if "segments" in arrays:
        regions = Regions(arrays["segments"], shown.show(shown.volume.array), arrays["uncertainty"])
    voxel_ml = shown.volume.geometry.voxel_volume_ml
    return Correction(arrays["labels"].copy(), about.label_names, voxel_ml, regions)
