"""What survives a crash: a result and every edit of it, one line each, written as soon as it is done."""

import base64
import contextlib
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_state_path

from napari_voxpool.editing import Correction
from voxpool.errors import InputError, ResourceError
from voxpool.io import Volume, atomic_path, write_json

STATE_VARIABLE = "VOXPOOL_STATE"
"""Environment variable that names another folder for journals."""

_ABOUT = "about.json"
_FORMAT = 2


@dataclass(frozen=True)
class About:
    """What a journal belongs to.

    Attributes:
        scan: The scan's `fingerprint`.
        model: The model's name.
        model_sha256: SHA-256 of its weights.
        label_names: Name of each class.
        quality: What share of the labels should be right, by the model.
        warnings: Why they may be wrong.
        started: When the result was made, seconds since 1970.
        format: Version of the journal.
    """

    scan: str
    model: str
    model_sha256: str
    label_names: dict[int, str]
    quality: float
    warnings: tuple[str, ...]
    started: float
    format: int = _FORMAT


@dataclass(frozen=True)
class Found:
    """A journal that is there.

    Attributes:
        about: What it belongs to.
        arrays: The result as it was before the edits: "labels", and for a model with them "segments" and "uncertainty".
        lines: The edits.
    """

    about: About
    arrays: dict[str, np.ndarray]
    lines: tuple[dict[str, Any], ...]


class Journal:
    """Writes a result and its edits into a folder of its own; the folder of a scan is found again by its fingerprint.

    The result and its edits are files named after when the result was made, and `about.json` says which of them
    count: it is written last, so that a crash leaves either the old result with its edits or the new one.

    Args:
        folder: Where; see `journal_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._about: About | None = None

    def begin(self, about: About, arrays: dict[str, np.ndarray]) -> None:
        """Store a result, in place of what was there.

        Raises:
            ResourceError: If the disk is full or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            new = self._result(about), self._edits(about)
            with atomic_path(new[0]) as path, path.open("wb") as file:
                np.savez_compressed(file, **arrays)
            new[1].write_text("", encoding="utf-8")
            write_json(self.folder / _ABOUT, asdict(about))
            for old in [*self.folder.glob("*.npz"), *self.folder.glob("*.jsonl")]:
                if old not in new:
                    old.unlink()
        except OSError as error:
            raise ResourceError(
                f"the result cannot be kept in {self.folder} ({error.strerror}); free space, or name another folder in"
                f" {STATE_VARIABLE}"
            ) from error
        self._about = about

    def note(self, action: str, **details: Any) -> None:
        """Add a line, and make sure that it is on the disk.

        Raises:
            ResourceError: If the disk is full or the folder cannot be written.
        """
        assert self._about is not None  # begun or read
        line = json.dumps({"do": action, "at": round(time.time(), 1), **details}, separators=(",", ":"))
        try:
            with self._edits(self._about).open("a", encoding="utf-8") as file:
                # begins with the line's end: a line that was cut off must not swallow the next
                file.write("\n" + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                f"the correction was taken back, since it cannot be kept in {self.folder} ({error.strerror}); free"
                " space and make it again"
            ) from error

    def read(self) -> Found | None:
        """What was stored, or None where there is nothing that can be used.

        A line that was cut off by a crash is left out: its edit was never seen done.
        """
        try:
            values = json.loads((self.folder / _ABOUT).read_text(encoding="utf-8"))
            values["label_names"] = {int(label): name for label, name in values["label_names"].items()}
            values["warnings"] = tuple(values["warnings"])
            if values["format"] != _FORMAT:
                return None
            about = About(**values)
            with np.load(self._result(about), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            return None
        lines = []
        with contextlib.suppress(OSError):
            for line in self._edits(about).read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        self._about = about
        return Found(about, arrays, tuple(lines))

    def _result(self, about: About) -> Path:
        return self.folder / f"result-{about.started:.3f}.npz"

    def _edits(self, about: About) -> Path:
        return self.folder / f"edits-{about.started:.3f}.jsonl"


def journal_folder(scan: str) -> Path:
    """Where the journal of a scan lies: in the user's own state folder, or in that of `STATE_VARIABLE`."""
    base = os.environ.get(STATE_VARIABLE)
    root = Path(base) if base else user_state_path("voxpool", appauthor=False)
    return root / "corrections" / scan[:32]


def fingerprint(scan: Volume) -> str:
    """SHA-256 of a scan's voxels and their place, wherever its file lies."""
    digest = hashlib.sha256(scan.geometry.affine.tobytes())
    digest.update(repr((scan.array.shape, scan.array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(scan.array).data)
    return digest.hexdigest()


def packed(array: np.ndarray) -> str:
    """An array of integers as text."""
    return base64.b64encode(zlib.compress(array.astype(np.int64).tobytes())).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The array, int64, from text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int64)


def replay(lines: Sequence[dict[str, Any]], correction: Correction) -> None:
    """Do the edits of a journal again.

    Raises:
        InputError: If a line means nothing.
    """
    for line in lines:
        try:
            _DO[line["do"]](correction, line)
        except (KeyError, ValueError, IndexError, TypeError, zlib.error) as error:
            raise InputError(f"the journal of corrections holds a line that cannot be read: {line}") from error


def _paint(correction: Correction, line: dict[str, Any]) -> None:
    correction.labels.reshape(-1)[unpacked(line["where"])] = unpacked(line["labels"])
    correction.take_over()


_DO = {
    "give": lambda correction, line: correction.give(line["ids"], line["label"]),
    "revert": lambda correction, line: correction.revert(line["ids"]),
    "fill": lambda correction, line: correction.fill(line["index"], line["label"]),
    "paint": _paint,
    "undo": lambda correction, line: correction.undo(),
    "redo": lambda correction, line: correction.redo(),
}
