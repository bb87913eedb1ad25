"""What `voxpool predict` is given: files, folders, DICOM series, manifests and BIDS data sets, as scans with names."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxpool.data import find_dataset
from voxpool.errors import InputError, UsageError
from voxpool.io import file_sha256, files_of, is_dicom_file, stem

_MANIFESTS = (".csv", ".tsv")
_BIDS_MARK = "dataset_description.json"
_BIDS_IMAGES = "*_T1w.nii*"
_BIDS_DERIVED = {"derivatives", "sourcedata", "code"}
"""Folders of a BIDS data set that hold no scans of its subjects."""

MOST_BYTES_OF_A_NAME = 230
"""File systems take 255; outputs are called `<name>_uncertainty.nii.gz` and the like."""


@dataclass(frozen=True)
class Scan:
    """One input: what is segmented together.

    Attributes:
        name: What its outputs are called.
        paths: One file per channel, or one DICOM folder.
    """

    name: str
    paths: tuple[Path, ...]

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM folder."""
        return self.paths[0].is_dir()


def list_scans(inputs: Sequence[Path], pattern: str | None = None) -> list[Scan]:
    """The scans that inputs name.

    | input | its scans |
    |---|---|
    | a file | itself |
    | `.csv`, `.tsv` | a manifest: its rows, with several channels where they are separated by `;` |
    | a folder with `dataset_description.json` | BIDS: the T1-weighted images of all subjects and sessions |
    | another folder | the volumes in it, at any depth; where there is none, each folder that holds DICOM files |

    Args:
        inputs: Files and folders.
        pattern: Of the files to take from folders; by default all, and `*_T1w.nii*` of BIDS.

    Raises:
        InputError: If an input is missing, a folder holds no scan, or a manifest cannot be read.
        UsageError: If two scans would get the same name.
    """
    scans: list[Scan] = []
    for path in inputs:
        if path.suffix.lower() in _MANIFESTS:
            # the labels of a manifest are of no use here, so their names need not be looked for
            cases = find_dataset(path, layout="manifest", label_names={0: "BG"}).cases
            scans += [Scan(case.id, case.images) for case in cases]
        elif path.is_dir():
            scans += [_scan(inside) for inside in _inside(path, pattern)]
        elif not os.path.lexists(path):  # a slip of the pen; in a manifest it is one case among others
            raise InputError(f"{path}: no such file; check the name (E101)")
        else:
            scans.append(_scan(path))
    _check_names(scans)
    return scans


def sha256_of(scan: Scan, series: str | None = None) -> str:
    """Of a scan's file; of several files, or of a DICOM folder and the series chosen of it, that of their checksums.

    Raises:
        InputError: If a file is missing, empty or of no known kind.
    """
    if scan.is_dicom:
        files = sorted(file for file in scan.paths[0].rglob("*") if file.is_file() and is_dicom_file(file))
        return _together([*(file_sha256(file) for file in files), series or ""])
    sums = [file_sha256(file) for path in scan.paths for file in files_of(path)]
    return sums[0] if len(sums) == 1 else _together(sums)


def _inside(folder: Path, pattern: str | None) -> list[Path]:
    bids = (folder / _BIDS_MARK).is_file()
    chosen = pattern or (_BIDS_IMAGES if bids else "*")
    files = (file for file in folder.rglob(chosen) if stem(file.name) is not None)
    if bids:
        files = (file for file in files if _BIDS_DERIVED.isdisjoint(file.relative_to(folder).parts))
    found = sorted(files) or _dicom_folders(folder, chosen)
    if not found:
        raise InputError(f"{folder} holds no volume that fits {chosen}; name the files, or give --image (E101)")
    return found


def _dicom_folders(root: Path, pattern: str) -> list[Path]:
    """Folders that hold DICOM files; those inside another one belong to it."""
    found = {file.parent for file in root.rglob(pattern) if file.is_file() and is_dicom_file(file)}
    return sorted(folder for folder in found if found.isdisjoint(folder.parents))


def _scan(path: Path) -> Scan:
    return Scan(path.resolve().name if path.is_dir() else stem(path.name) or path.name, (path,))


def _check_names(scans: Iterable[Scan]) -> None:
    # names that differ in case alone are one file on some systems
    taken: dict[str, Scan] = {}
    for scan in scans:
        if len(os.fsencode(scan.name)) > MOST_BYTES_OF_A_NAME:
            raise InputError(
                f"the name {scan.name[:20]}... is too long for what is called after it, {MOST_BYTES_OF_A_NAME} bytes"
                " at most; give the scan an id in a manifest (E134)"
            )
        other = taken.setdefault(scan.name.casefold(), scan)
        if other is not scan:
            raise UsageError(
                f"{other.paths[0]} and {scan.paths[0]} would both become {scan.name}_labels.nii.gz; segment them into"
                " two folders, or give them names in a manifest (E127)"
            )


def _together(sums: Sequence[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()
