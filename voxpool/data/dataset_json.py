"""Data sets that describe themselves in a dataset.json: nnU-Net raw and Medical Segmentation Decathlon."""

import json
import re
from pathlib import Path
from typing import Any

from voxpool.errors import InputError, UsageError

from .cases import Case, Found, subject_of


def find_nnunet(root: Path, images: tuple[str, ...], labels: str | None) -> Found:
    """Finds `imagesTr/<id>_<channel>` and `labelsTr/<id>`, or the files listed under "dataset".

    Args:
        root: The folder, or its dataset.json.
        images: Must be empty, the layout names its files.
        labels: Must be None.

    Raises:
        InputError: When files or channels are missing, or the description has another form.
    """
    _refuse_patterns("nnU-Net", images, labels)
    root = root.parent if root.is_file() else root
    content = read_json(root / "dataset.json")
    names = _label_names(content)
    if isinstance(content.get("dataset"), dict):
        return (
            [_listed(root, case_id, entry) for case_id, entry in content["dataset"].items()],
            names,
            "as given",
        )
    ending = str(content.get("file_ending", ".nii.gz"))
    channels: dict[str, dict[int, Path]] = {}
    for file in sorted((root / "imagesTr").glob(f"*{ending}")):
        hit = re.fullmatch(r"([^.].*)_(\d{4})", file.name.removesuffix(ending))
        if hit:
            channels.setdefault(hit[1], {})[int(hit[2])] = file
    if not channels:
        raise InputError(f"{root.name}: no imagesTr/<id>_0000{ending}; check the folder and file_ending (E101)")
    stated = content.get("channel_names", content.get("modality"))
    count = len(stated) if stated else max(len(files) for files in channels.values())
    cases = []
    for case_id, files in channels.items():
        if sorted(files) != list(range(count)):
            raise InputError(
                f"{root.name}: case {case_id} has the channels {sorted(files)}, wanted 0 to {count - 1}; "
                "add the missing files (E125)"
            )
        truth = root / "labelsTr" / f"{case_id}{ending}"
        cases.append(Case(case_id, tuple(files[c] for c in range(count)), truth, subject_of(case_id)))
    return cases, names, "as given"


def find_msd(root: Path, images: tuple[str, ...], labels: str | None) -> Found:
    """Finds the files that a dataset.json lists under "training".

    Args:
        root: The folder, or its dataset.json.
        images: Must be empty, the layout names its files.
        labels: Must be None.

    Raises:
        InputError: When the description has another form.
    """
    _refuse_patterns("MSD", images, labels)
    file = root if root.is_file() else root / "dataset.json"
    content = read_json(file)
    training = content.get("training")
    if not isinstance(training, list) or not training:
        raise InputError(f"{file.name}: has no list named training; write one of image and label paths (E105)")
    cases = []
    for entry in training:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(f"{file.name}: an entry of training has no image; add its path (E105)")
        scan = file.parent / entry["image"]
        truth = file.parent / entry["label"] if isinstance(entry.get("label"), str) else None
        case_id = re.sub(r"\.nii(\.gz)?$", "", scan.name)
        cases.append(Case(case_id, (scan,), truth, subject_of(case_id)))
    return cases, _label_names(content), "as given"


def is_nnunet(root: Path, content: dict[str, Any]) -> bool:
    """Tells nnU-Net, which numbers channels in file names, from MSD, which lists its files."""
    if "channel_names" in content or "file_ending" in content:
        return True
    training = content.get("training")
    listed = [entry.get("image") for entry in training if isinstance(entry, dict)] if isinstance(training, list) else []
    # The first nnU-Net listed its cases as MSD does, but under names that have no channel and do not exist.
    if any(isinstance(image, str) and (root / image).is_file() for image in listed):
        return False
    return any(re.search(r"_\d{4}\.nii\.gz$", file.name) for file in (root / "imagesTr").glob("*.nii.gz"))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InputError: When the file is missing, is not JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror}): {path}; check the path (E101)") from None
    except ValueError as error:
        raise InputError(f"{path.name}: is not JSON ({error}); repair it (E105)") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: wanted a JSON object, found a {type(content).__name__}; repair it (E105)")
    return content


def _listed(root: Path, case_id: str, entry: Any) -> Case:
    scans = entry.get("images") if isinstance(entry, dict) else None
    if not isinstance(scans, list) or not scans or not all(isinstance(scan, str) for scan in scans):
        raise InputError(f"dataset.json: case {case_id} lists no images; add their paths (E105)")
    truth = root / entry["label"] if isinstance(entry.get("label"), str) else None
    return Case(case_id, tuple(root / scan for scan in scans), truth, subject_of(case_id))


def _refuse_patterns(layout: str, images: tuple[str, ...], labels: str | None) -> None:
    if images or labels is not None:
        raise UsageError(f"the {layout} layout names its files itself; leave out the patterns")


def _label_names(content: dict[str, Any]) -> dict[int, str] | None:
    """Reads both forms: MSD's {"0": "background"} and nnU-Net's {"background": 0}."""
    given = content.get("labels")
    if not isinstance(given, dict) or not given:
        return None
    names: dict[int, str] = {}
    for key, value in given.items():
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if key == "ignore":
            raise InputError("dataset.json: an ignore label is not supported; remove it from the labels (E122)")
        if not re.fullmatch(r"\d+", str(number)) or not isinstance(name, str):
            raise InputError(
                f"dataset.json: label {key!r}: {value!r} is no single number (regions are not supported); "
                "give each label one number (E122)"
            )
        names[int(number)] = name
    return dict(sorted(names.items()))
