"""Data sets on disk: which files make a case, in the layouts that researchers use."""

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from voxpool.errors import InputError, UsageError
from voxpool.io import read_labels

from .cases import TISSUES, Case, Dataset, Found, parse_label_names, subject_of
from .dataset_json import find_msd, find_nnunet, is_nnunet, read_json
from .patterns import Match, list_files, literal_length, match_files

_IBSR_LABELS = {
    "segTRI_ana": "IBSR segTRI (ventricular CSF only, sulcal CSF counts as GM)",
    "segTRI_fill_ana": "IBSR segTRI_fill (sulcal CSF included)",
}
_IBSR_SHORT = {None: "segTRI_ana", "segTRI": "segTRI_ana", "segTRI_fill": "segTRI_fill_ana"}
_IBSR_REPACKED = "IBSR repacked (as given; whether CSF includes the sulci is not stated)"


def find_dataset(
    path: str | os.PathLike[str],
    *,
    layout: str = "auto",
    image: str | Sequence[str] | None = None,
    labels: str | None = None,
    label_names: Mapping[int, str] | str | None = None,
) -> Dataset:
    """Finds the cases of a data set, and reads the label maps only where nothing names the labels.

    | layout | what it looks for |
    |---|---|
    | ibsr | `IBSR_nn_ana_strip.nii.gz` and `IBSR_nn_segTRI_ana.nii.gz` in folders, or repacked `IBSR_nn.nii.gz` and `IBSR_nn_seg.nii.gz` |
    | folder | files named as the patterns `image` and `labels`, at any depth; the case id is what the star stands for, or else the folder |
    | manifest | a `.csv` or `.tsv` file with the columns id, image (channels separated by `;`) and optionally labels, subject |
    | nnunet | `imagesTr/id_0000.nii.gz`, `labelsTr/id.nii.gz` and `dataset.json` |
    | msd | `dataset.json` with a list `training` of image and label |

    Args:
        path: A folder, a manifest, or a `dataset.json`.
        layout: One of the table, or "auto" to decide by what is there.
        image: folder: pattern of the images, such as `*_t1.nii.gz`, one per channel. ibsr: `ana_strip` or
            `ana`.
        labels: folder: pattern of the label maps. ibsr: `segTRI_ana` or `segTRI_fill_ana`.
        label_names: Value to name, or text such as "0=BG,1=CSF,2=GM,3=WM". By default what the layout states;
            else the values found are named: BG, CSF, GM, WM if all are within 0 to 3, else class_<n>.

    Returns:
        The data set, cases in the order of their ids.

    Raises:
        UsageError: For an unknown layout, or patterns that do not belong to it.
        InputError: When nothing is found, several layouts fit, files are missing or ids cannot be used.
    """  # noqa: E501
    root = Path(path)
    if not os.path.exists(root):
        raise InputError(f"{root.name}: no such file or folder: {root}; check the path (E101)")
    if layout not in (*_LAYOUTS, "auto"):
        raise UsageError(f"unknown layout {layout!r}, wanted auto or one of {', '.join(_LAYOUTS)}")
    images = () if image is None else (image,) if isinstance(image, str) else tuple(image)
    if layout == "auto":
        layout = _recognise(root, images, labels)
    cases, names, convention = _LAYOUTS[layout](root, images, labels)
    cases = sorted(cases, key=lambda case: case.id)
    for before, after in pairwise(cases):
        if before.id == after.id:
            raise InputError(f"{root.name}: two cases have the id {after.id!r}; give each its own id (E127)")
    if isinstance(label_names, str):
        names = parse_label_names(label_names)
    elif label_names is not None:
        names = {int(value): name for value, name in label_names.items()}
    folder = root.parent if root.name == "dataset.json" else root
    name = folder.stem if folder.is_file() else folder.resolve().name
    return Dataset(name, tuple(cases), names or _names_found(cases), convention)


def _recognise(root: Path, images: tuple[str, ...], labels: str | None) -> str:
    """Decides on a layout by what is there."""
    if root.is_file():
        if root.suffix.lower() in (".csv", ".tsv"):
            return "manifest"
        if root.name != "dataset.json":
            raise InputError(
                f"{root.name}: wanted a folder, a .csv or .tsv manifest, or a dataset.json; name one of them (E105)"
            )
        root = root.parent
    if any(mark in pattern for pattern in (*images, labels or "") for mark in "*?[/."):
        return "folder"
    fits = ["ibsr"] if _ibsr_files(root) else []
    description = root / "dataset.json"
    if description.is_file():
        fits.append("nnunet" if is_nnunet(root, read_json(description)) else "msd")
    if len(fits) > 1:
        raise InputError(f"{root.name}: fits the layouts {' and '.join(fits)}; choose one of them (E135)")
    if not fits:
        tables = sorted(file.name for file in root.iterdir() if file.suffix.lower() in (".csv", ".tsv"))
        hint = f", such as {tables[0]}" if tables else ""
        raise InputError(
            f"{root.name}: found no data set; looked for IBSR_nn files and an nnU-Net or MSD dataset.json; "
            "for any other folder give the name patterns of images and labels (such as '*_t1.nii.gz' and "
            f"'*_tissues.nii.gz'), or a manifest{hint} (E135)"
        )
    return fits[0]


def _ibsr_files(root: Path) -> dict[str, dict[str, Path]]:
    """Case id to kind of file ("" for the repacked image) to path."""
    found: dict[str, dict[str, Path]] = {}
    for file in list_files(root):
        hit = re.fullmatch(r"(IBSR_\d\d)(?:_(\w+))?\.nii(?:\.gz)?", file.name)
        if hit:
            kinds = found.setdefault(hit[1], {})
            kind = hit[2] or ""
            if kind in kinds:
                other = kinds[kind].relative_to(root)
                raise InputError(f"{file.name}: is there twice, as {other} and {file}; keep one (E127)")
            kinds[kind] = root / file
    return found


def _find_ibsr(root: Path, images: tuple[str, ...], labels: str | None) -> Found:
    files = _ibsr_files(root)
    if not files:
        raise InputError(f"{root.name}: no file below it is named IBSR_nn; check the path (E101)")
    if len(images) > 1:
        raise UsageError("IBSR has one image per case; give one kind of image")
    if any("" in kinds for kinds in files.values()):
        if images or labels not in (None, "seg"):
            raise UsageError("the repacked IBSR has one image and one label map; leave out image and labels")
        image_kind, label_kind, convention = "", "seg", _IBSR_REPACKED
    else:
        image_kind = images[0] if images else "ana_strip"
        label_kind = _IBSR_SHORT.get(labels) or str(labels)
        if label_kind not in _IBSR_LABELS:
            raise UsageError(f"unknown IBSR label map {labels!r}, wanted {' or '.join(_IBSR_LABELS)}")
        convention = _IBSR_LABELS[label_kind]
    cases = []
    for case_id, kinds in files.items():
        if image_kind not in kinds:
            missing = f"{case_id}_{image_kind}".removesuffix("_")
            raise InputError(
                f"{root.name}: {missing}.nii.gz is missing, found {', '.join(sorted(kinds))}; add it (E101)"
            )
        cases.append(Case(case_id, (kinds[image_kind],), kinds.get(label_kind), case_id))
    if not any(case.labels for case in cases):
        raise InputError(f"{root.name}: no case has IBSR_nn_{label_kind}.nii.gz; add the label maps (E101)")
    return cases, dict(TISSUES), convention


def _find_folder(root: Path, images: tuple[str, ...], labels: str | None) -> Found:
    if not images:
        raise UsageError("the folder layout needs the name pattern of the images, such as '*_t1.nii.gz'")
    if not root.is_dir():
        raise UsageError(f"{root.name}: is a file; name patterns need a folder")
    patterns = images if labels is None else (*images, labels)
    if len(set(patterns)) < len(patterns):
        raise UsageError("the name patterns of images and labels must differ from each other")
    by_id = _match(root, patterns)
    ids = by_id[images[0]]
    for pattern in patterns[1:]:
        if alone := sorted(set(by_id[pattern]) - set(ids)):
            raise InputError(
                f"{root.name}: {by_id[pattern][alone[0]].name} has no partner named {images[0]!r} "
                f"({len(alone)} of {len(by_id[pattern])} have none); add it or narrow {pattern!r} (E101)"
            )
    cases = []
    for case_id in ids:
        for pattern in images:
            if case_id not in by_id[pattern]:
                raise InputError(f"{root.name}: case {case_id} has no channel {pattern!r}; add it (E125)")
        truth = by_id[labels].get(case_id) if labels is not None else None
        cases.append(Case(case_id, tuple(by_id[p][case_id] for p in images), truth, subject_of(case_id)))
    return cases, None, "no labels" if labels is None else f"as given in {labels}"


def _match(root: Path, patterns: Sequence[str]) -> dict[str, dict[str, Path]]:
    """For each pattern, case id to file: the id is what the star stands for, or the folder."""
    files = list_files(root)
    found: dict[str, list[Match]] = {}
    taken: set[Path] = set()
    # A file that two patterns name belongs to the more specific one: '*.nii.gz' leaves '*_seg.nii.gz' alone.
    for pattern in sorted(patterns, key=literal_length, reverse=True):
        found[pattern] = [match for match in match_files(root, files, pattern) if match.path not in taken]
        taken.update(match.path for match in found[pattern])
        if not found[pattern]:
            raise InputError(f"{root.name}: no file below it is named {pattern!r}; check the pattern (E101)")
    for key in ("star", "folder"):
        keyed = {pattern: {getattr(m, key): m.path for m in matches} for pattern, matches in found.items()}
        unique = all(len(keyed[pattern]) == len(found[pattern]) for pattern in found)
        shared = set.intersection(*(set(ids) for ids in keyed.values()))
        if unique and shared and "" not in shared:
            return keyed
    shown = ", ".join(f"{pattern!r} found {found[pattern][0].path.name}" for pattern in patterns)
    raise InputError(
        f"{root.name}: cannot tell which files belong together, neither by the stars of the patterns nor by "
        f"folder ({shown}); write a manifest (E127)"
    )


def _find_manifest(root: Path, images: tuple[str, ...], labels: str | None) -> Found:
    if images or labels is not None:
        raise UsageError("a manifest names its files itself; leave out the patterns of images and labels")
    if not root.is_file():
        raise UsageError(f"{root.name}: is a folder; the manifest layout needs the .csv or .tsv file itself")
    tabs = root.suffix.lower() == ".tsv"
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t" if tabs else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{root.name}: is no readable table ({error}); save it as UTF-8 text (E105)") from None
    columns = [cell.strip().lower() for cell in lines[0]] if lines else []
    if not {"id", "image"} <= set(columns):
        raise InputError(
            f"{root.name}: wanted the columns id, image (and labels, subject) separated by "
            f"{'tabs' if tabs else 'commas'}, found {', '.join(columns) or 'nothing'} (E105)"
        )
    cases = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        row = dict(zip(columns, (cell.strip() for cell in line), strict=False))
        if not row.get("id") or not row.get("image"):
            raise InputError(f"{root.name}: line {number} has no id or no image; fill both in (E105)")
        truth = root.parent / row["labels"] if row.get("labels") else None
        files = tuple(root.parent / part.strip() for part in row["image"].split(";"))
        cases.append(Case(row["id"], files, truth, row.get("subject") or subject_of(row["id"])))
    if not cases:
        raise InputError(f"{root.name}: lists no case; add a line per case (E105)")
    return cases, None, "as given"


def _names_found(cases: Sequence[Case]) -> dict[int, str]:
    """Names the values that occur; files that cannot be read are left to the check, which reports all."""
    values: set[int] = {0}
    for case in cases:
        if case.labels is not None:
            try:
                values.update(np.unique(read_labels(case.labels).array).tolist())
            except InputError:
                continue
    if values <= set(TISSUES):
        return dict(TISSUES)
    return {value: f"class_{value}" for value in sorted(values)}


_LAYOUTS: dict[str, Callable[[Path, tuple[str, ...], str | None], Found]] = {
    "ibsr": _find_ibsr,
    "folder": _find_folder,
    "manifest": _find_manifest,
    "nnunet": find_nnunet,
    "msd": find_msd,
}
