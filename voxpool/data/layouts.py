"""Data sets on disk: which files make a case, in the layouts that researchers use."""

import csv
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxpool.errors import InputError, UsageError
from voxpool.io import read_labels
from .cases import TISSUES, Case, Dataset, parse_label_names
from .patterns import Match, list_files, literal_length, match_files

Found = tuple[list[Case], dict[int, str] | None, str]
"""Cases, label names where the layout states them, and the label convention."""

_IBSR_KINDS = {
    "segTRI_ana": "IBSR segTRI (ventricular CSF only, sulcal CSF counts as GM)",
    "segTRI_fill_ana": "IBSR segTRI_fill (sulcal CSF included)",
}
_REPACKED = "IBSR repacked (as given; whether CSF includes the sulci is not stated)"


def find_dataset(
    path: str | os.PathLike[str],
    *,
    layout: str = "auto",
    image: str | Sequence[str] | None = None,
    labels: str | None = None,
    label_names: Mapping[int, str] | str | None = None,
) -> Dataset:
    """Finds the cases of a data set; no image is read.

    | layout | what it looks for |
    |---|---|
    | ibsr | `IBSR_nn/IBSR_nn_ana_strip.nii.gz` with `..._segTRI_ana.nii.gz`, or `IBSR_nn.nii.gz` with `IBSR_nn_seg.nii.gz` |
    | folder | the patterns `image` and `labels`, at any depth; the star is the case id |
    | manifest | a `.csv` or `.tsv` file with the columns id, image and optionally labels, subject |
    | nnunet | `imagesTr/id_0000.nii.gz`, `labelsTr/id.nii.gz` and `dataset.json` |
    | msd | `dataset.json` with a list `training` of image and label |

    Args:
        path: A folder, a manifest, or a `dataset.json`.
        layout: One of the table, or "auto" to decide by what is there.
        image: folder: pattern of the images, such as `*_t1.nii.gz`, one per channel. ibsr: `ana_strip` or `ana`.
        labels: folder: pattern of the label maps. ibsr: `segTRI_ana` or `segTRI_fill_ana`.
        label_names: Value to name, or text such as "0=BG,1=CSF,2=GM,3=WM". By default what the layout states; else
            the values found in the label maps are named: BG, CSF, GM, WM if they are within 0 to 3, else class_<n>.

    Returns:
        The data set, cases in the order of their ids.

    Raises:
        UsageError: For an unknown layout, or patterns that are missing.
        InputError: When nothing is found, several layouts fit, files are missing or ids cannot be used.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"{root.name}: no such file or folder: {root}; check the path (E101)")
    if layout not in (*_LAYOUTS, "auto"):
        raise UsageError(f"unknown layout {layout!r}, wanted auto or one of {', '.join(_LAYOUTS)}")
    if layout == "auto":
        layout = _recognise(root, image, labels)
    cases, names, convention = _LAYOUTS[layout](root, image, labels)
    cases = sorted(cases, key=lambda case: case.id)
    for before, after in zip(cases, cases[1:], strict=False):
        if before.id == after.id:
            raise InputError(f"{root.name}: two cases have the id {after.id!r}; give each its own id (E127)")
    if isinstance(label_names, str):
        names = parse_label_names(label_names)
    elif label_names is not None:
        names = dict(label_names)
    name = root.parent.name if root.name == "dataset.json" else root.stem if root.is_file() else root.name
    return Dataset(name or root.resolve().name, tuple(cases), names or _names_found(cases), convention)


def _recognise(root: Path, image: str | Sequence[str] | None, labels: str | None) -> str:
    """Decides on a layout by what is there."""
    if root.is_file():
        if root.suffix.lower() in (".csv", ".tsv"):
            return "manifest"
        if root.name == "dataset.json":
            root = root.parent
        else:
            raise InputError(
                f"{root.name}: wanted a folder, a .csv or .tsv manifest, or a dataset.json (E105)"
            )
    if any(mark in pattern for pattern in (*_patterns(image), labels or "") for mark in "*?[/."):
        return "folder"
    fits = []
    if _ibsr_files(root):
        fits.append("ibsr")
    if (root / "dataset.json").is_file():
        fits.append("nnunet" if _is_nnunet(root, _read_json(root / "dataset.json")) else "msd")
    manifests = [name for name in ("cases.csv", "cases.tsv") if (root / name).is_file()]
    if len(fits) > 1:
        raise InputError(f"{root.name}: fits the layouts {' and '.join(fits)}; choose one with layout (E125)")
    if not fits:
        hint = f"; name the manifest {manifests[0]} itself" if manifests else ""
        raise InputError(
            f"{root.name}: no data set found: looked for IBSR_nn folders or files, an nnU-Net or MSD dataset.json; "
            f"give the patterns image='*_t1.nii.gz' and labels='*_tissues.nii.gz' for a folder, or a manifest{hint} "
            "(E125)"
        )
    return fits[0]


def _patterns(image: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if image is None else (image,) if isinstance(image, str) else tuple(image)


def _ibsr_files(root: Path) -> dict[str, dict[str, Path]]:
    """Case id to kind of file ("" for the repacked image) to path."""
    found: dict[str, dict[str, Path]] = {}
    for file in list_files(root):
        hit = re.fullmatch(r"(IBSR_\d\d)(?:_(\w+))?\.nii(?:\.gz)?", file.name)
        if hit:
            kinds = found.setdefault(hit[1], {})
            kind = hit[2] or ""
            if kind in kinds:
                raise InputError(
                    f"{file.name}: is there twice, as {kinds[kind].relative_to(root)} and {file}; keep one (E127)"
                )
            kinds[kind] = root / file
    return found


def _find_ibsr(root: Path, image: str | Sequence[str] | None, labels: str | None) -> Found:
    files = _ibsr_files(root)
    if not files:
        raise InputError(
            f"{root.name}: no IBSR_nn.nii.gz or IBSR_nn_<kind>.nii.gz below it; check the path (E101)"
        )
    if any("" in kinds for kinds in files.values()):
        if image is not None or labels not in (None, "seg"):
            raise UsageError(
                f"{root.name}: the repacked IBSR has one image and one label map, nothing to choose"
            )
        cases = [
            Case(case_id, (_need(kinds, "", case_id, root),), kinds.get("seg"), case_id)
            for case_id, kinds in files.items()
        ]
        return cases, TISSUES, _REPACKED
    if len(_patterns(image)) > 1:
        raise UsageError("IBSR has one image per case; give one kind of image")
    image_kind = _patterns(image)[0] if image else "ana_strip"
    wanted = {"segTRI": "segTRI_ana", "segTRI_fill": "segTRI_fill_ana", None: "segTRI_ana"}
    label_kind = wanted.get(labels, labels) or "segTRI_ana"
    if label_kind not in _IBSR_KINDS:
        raise UsageError(f"unknown IBSR label map {labels!r}, wanted {' or '.join(_IBSR_KINDS)}")
    cases = [
        Case(case_id, (_need(kinds, image_kind, case_id, root),), kinds.get(label_kind), case_id)
        for case_id, kinds in files.items()
    ]
    if not any(case.labels for case in cases):
        raise InputError(
            f"{root.name}: no case has IBSR_nn_{label_kind}.nii.gz; choose another label map (E101)"
        )
    return cases, TISSUES, _IBSR_KINDS[label_kind]


def _need(kinds: dict[str, Path], kind: str, case_id: str, root: Path) -> Path:
    if kind not in kinds:
        name = f"{case_id}_{kind}.nii.gz" if kind else f"{case_id}.nii.gz"
        raise InputError(f"{root.name}: {name} is missing, found {', '.join(sorted(kinds))}; add it (E101)")
    return kinds[kind]


def _find_folder(root: Path, image: str | Sequence[str] | None, labels: str | None) -> Found:
    patterns = _patterns(image)
    if not patterns:
        raise UsageError("the folder layout needs an image pattern, such as image='*_t1.nii.gz'")
    if len({*patterns, labels}) < len(patterns) + 1:
        raise UsageError("the patterns of images and labels must differ from each other")
    files = list_files(root)
    found: dict[str, list[Match]] = {}
    taken: set[Path] = set()
    every = [*patterns, labels] if labels is not None else list(patterns)
    # A file that two patterns name belongs to the more specific one: '*.nii.gz' leaves '*_seg.nii.gz' alone.
    for pattern in sorted(every, key=literal_length, reverse=True):
        found[pattern] = [match for match in match_files(root, files, pattern) if match.path not in taken]
        taken.update(match.path for match in found[pattern])
        if not found[pattern]:
            raise InputError(f"{root.name}: no file below it is named {pattern!r}; check the pattern (E101)")
    by_id = _key_matches(found, root.name)
    main = by_id[patterns[0]]
    for pattern in every[1:]:
        if extra := sorted(set(by_id[pattern]) - set(main)):
            raise InputError(
                f"{root.name}: {by_id[pattern][extra[0]].name} has no partner named {patterns[0]!r} "
                f"({len(extra)} of {len(by_id[pattern])} files have none); add it or narrow {pattern!r} (E101)"
            )
    cases = []
    for case_id in main:
        for pattern in patterns[1:]:
            if case_id not in by_id[pattern]:
                raise InputError(
                    f"{root.name}: case {case_id} has no channel named {pattern!r}; add it (E125)"
                )
        channels = tuple(by_id[pattern][case_id] for pattern in patterns)
        truth = by_id[labels].get(case_id) if labels is not None else None
        cases.append(Case(case_id, channels, truth, _subject(case_id)))
    return cases, None, f"as given by {labels}" if labels else "none"


def _key_matches(found: dict[str, list[Match]], name: str) -> dict[str, dict[str, Path]]:
    """Gives each match its case id: what the star stands for, or the folder where that says more."""
    for key in ("star", "folder"):
        keyed = {pattern: {getattr(m, key): m.path for m in matches} for pattern, matches in found.items()}
        unique = all(len(keyed[pattern]) == len(found[pattern]) for pattern in found)
        shared = set.intersection(*(set(ids) for ids in keyed.values()))
        if unique and "" not in shared and shared:
            return keyed
    shown = ", ".join(f"{pattern!r} found {found[pattern][0].path.name}" for pattern in found)
    raise InputError(
        f"{name}: the files cannot be told apart or matched by what the stars stand for, nor by their folder "
        f"({shown}); write a manifest (E127)"
    )


def _subject(case_id: str) -> str:
    """BIDS names carry the subject: sub-01_ses-2 is a scan of sub-01."""
    hit = re.match(r"(sub-[A-Za-z0-9]+)(?:_|$)", case_id)
    return hit[1] if hit else case_id


def _find_manifest(root: Path, image: str | Sequence[str] | None, labels: str | None) -> Found:
    _no_patterns("manifest", image, labels)
    if not root.is_file():
        raise UsageError(f"{root.name}: the manifest layout needs the .csv or .tsv file itself")
    separator = "\t" if root.suffix.lower() == ".tsv" else ","
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{root.name}: cannot be read as a table ({error}); save it as UTF-8 text (E101)"
        ) from None
    columns = set(rows[0]) if rows else set()
    if not {"id", "image"} <= columns:
        raise InputError(
            f"{root.name}: wanted the columns id, image (and labels, subject) separated by "
            f"{'tabs' if separator == chr(9) else 'commas'}, found {', '.join(map(str, columns)) or 'no rows'} (E105)"
        )
    cases = []
    for number, row in enumerate(rows, start=2):
        cells = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str | None)}
        if not cells["id"] or not cells["image"]:
            raise InputError(f"{root.name}: line {number} has no id or no image; fill both in (E105)")
        truth = root.parent / cells["labels"] if cells.get("labels") else None
        images = tuple(root.parent / part.strip() for part in cells["image"].split(";"))
        cases.append(Case(cells["id"], images, truth, cells.get("subject") or _subject(cells["id"])))
    return cases, None, "as given"


def _find_nnunet(root: Path, image: str | Sequence[str] | None, labels: str | None) -> Found:
    _no_patterns("nnunet", image, labels)
    root = root.parent if root.is_file() else root
    content = _read_json(root / "dataset.json")
    ending = content.get("file_ending", ".nii.gz")
    channels = content.get("channel_names", content.get("modality"))
    listed = content.get("dataset")
    if isinstance(listed, dict):
        cases = [
            Case(i, tuple(root / p for p in entry["images"]), root / entry["label"], _subject(i))
            for i, entry in listed.items()
        ]
        return cases, _json_names(content, root.name), "as given"
    by_case: dict[str, dict[int, Path]] = {}
    for file in sorted((root / "imagesTr").glob(f"*{ending}")):
        if hit := re.fullmatch(r"([^.].*)_(\d{4})", file.name.removesuffix(ending)):
            by_case.setdefault(hit[1], {})[int(hit[2])] = file
    if not by_case:
        raise InputError(
            f"{root.name}: no imagesTr/<id>_0000{ending}; check the folder and file_ending (E101)"
        )
    count = len(channels) if channels else max(len(files) for files in by_case.values())
    cases = []
    for case_id, files in by_case.items():
        if sorted(files) != list(range(count)):
            raise InputError(
                f"{root.name}: case {case_id} has the channels {sorted(files)}, wanted 0 to {count - 1}; "
                "add the missing files (E125)"
            )
        truth = root / "labelsTr" / f"{case_id}{ending}"
        cases.append(Case(case_id, tuple(files[c] for c in range(count)), truth, _subject(case_id)))
    return cases, _json_names(content, root.name), "as given"


def _is_nnunet(root: Path, content: dict[str, Any]) -> bool:
    """nnU-Net numbers the channels in the file names; MSD keeps them in one file and lists the files."""
    if "channel_names" in content or "file_ending" in content:
        return True
    names = [file.name for file in (root / "imagesTr").glob("*.nii.gz")]
    return (
        bool(names)
        and all(re.search(r"_\d{4}\.nii\.gz$", name) for name in names)
        and not any(
            (root / entry["image"]).is_file()
            for entry in content.get("training", [])
            if isinstance(entry, dict) and isinstance(entry.get("image"), str)
        )
    )


def _find_msd(root: Path, image: str | Sequence[str] | None, labels: str | None) -> Found:
    _no_patterns("msd", image, labels)
    file = root if root.is_file() else root / "dataset.json"
    content = _read_json(file)
    training = content.get("training")
    if not isinstance(training, list) or not training:
        raise InputError(
            f"{file.name}: holds no list named training; write one of image and label paths (E105)"
        )
    cases = []
    for entry in training:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(
                f"{file.name}: a training entry has no image path; wanted image and label (E105)"
            )
        picture = file.parent / entry["image"]
        truth = file.parent / entry["label"] if isinstance(entry.get("label"), str) else None
        case_id = re.sub(r"\.nii(\.gz)?$", "", picture.name)
        cases.append(Case(case_id, (picture,), truth, _subject(case_id)))
    return cases, _json_names(content, root.name), "as given"


def _no_patterns(layout: str, image: str | Sequence[str] | None, labels: str | None) -> None:
    if image is not None or labels is not None:
        raise UsageError(
            f"the {layout} layout names its files itself; leave out the image and labels patterns"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path.name}: cannot be read ({error.strerror}); check the path {path} (E101)"
        ) from None
    except ValueError as error:
        raise InputError(f"{path.name}: is not JSON ({error}); repair it (E105)") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path.name}: wanted a JSON object, found a {type(content).__name__}; repair it (E105)"
        )
    return content


def _json_names(content: dict[str, Any], name: str) -> dict[int, str] | None:
    """Reads both forms: MSD's {"0": "background"} and nnU-Net's {"background": 0}."""
    given = content.get("labels")
    if not isinstance(given, dict) or not given:
        return None
    names = {}
    for key, value in given.items():
        if key == "ignore":
            raise InputError(f"{name}: an ignore label is not supported; remove it from the labels (E122)")
        pair = (value, key) if isinstance(value, int) else (key, value)
        if not re.fullmatch(r"\d+", str(pair[0])):
            raise InputError(
                f"{name}: label {key!r} is no single number (regions are not supported): {value!r} (E122)"
            )
        names[int(pair[0])] = str(pair[1])
    return dict(sorted(names.items()))


def _names_found(cases: Sequence[Case]) -> dict[int, str]:
    """Names the values that occur; files that cannot be read are left to the check, which reports them all."""
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


_LAYOUTS: dict[str, Callable[[Path, str | Sequence[str] | None, str | None], Found]] = {
    "ibsr": _find_ibsr,
    "folder": _find_folder,
    "manifest": _find_manifest,
    "nnunet": _find_nnunet,
    "msd": _find_msd,
}
