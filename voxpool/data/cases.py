"""What a data set is: cases with images, labels and subjects, and the names of the labels."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxpool.errors import InputError, UsageError

TISSUES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}
"""The tissue labels of IBSR and of the paper: background, cerebrospinal fluid, grey and white matter."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# Room for ".nii.gz" and a temporary prefix within the 255 bytes of a file name.
_LONGEST = 120


Level = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Case:
    """One scan of one subject.

    Attributes:
        id: Unique in its data set, and usable as a file name.
        images: One file per channel.
        labels: The label map on the grid of the images, None for an unlabelled case.
        subject: Who was scanned; cases of one subject never share a fold's two sides.

    Raises:
        InputError: When the id cannot be a file name.
    """

    id: str
    images: tuple[Path, ...]
    labels: Path | None
    subject: str

    def __post_init__(self) -> None:
        check_id(self.id)


@dataclass(frozen=True)
class Dataset:
    """Cases and what their labels mean.

    Attributes:
        name: Short name, for reports.
        cases: In the order of their ids.
        label_names: Label value to class name, background included.
        convention: Which label convention the truth follows, for reports.
    """

    name: str
    cases: tuple[Case, ...]
    label_names: dict[int, str]
    convention: str


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        level: "error" stops a run, "warning" and "info" do not.
        code: E… for errors, W… for warnings, I… for information.
        case_id: The case it is about, None for the whole data set.
        message: One sentence: what, found, wanted, remedy.
    """

    level: Level
    code: str
    case_id: str | None
    message: str


Found = tuple[list[Case], dict[int, str] | None, str]
"""What a layout finds: cases, label names where it states them, and the label convention."""


def check_id(case_id: str) -> None:
    """Refuses a case id that is no safe file name on every system.

    Raises:
        InputError: E127, naming the id and what is wrong with it.
    """
    reason = None
    if not case_id:
        reason = "it is empty"
    elif found := _UNSAFE.search(case_id):
        reason = f"it holds {found.group()!r}"
    elif case_id[0] in ".- " or case_id[-1] in ". ":
        reason = "it starts with a dot, dash or space, or ends with a dot or space"
    elif _RESERVED.fullmatch(case_id):
        reason = "Windows reserves that name"
    elif len(case_id.encode()) > _LONGEST:
        reason = f"it is longer than {_LONGEST} bytes"
    if reason:
        raise InputError(
            f"case id {case_id!r} cannot be a file name ({reason}); rename the files or list them in a manifest (E127)"
        )


def subject_of(case_id: str) -> str:
    """Guesses the subject of a case: BIDS names carry it (sub-01_ses-2 is of sub-01), else it is the case."""
    hit = re.match(r"(sub-[A-Za-z0-9]+)(?:_|$)", case_id)
    return hit[1] if hit else case_id


def parse_label_names(text: str) -> dict[int, str]:
    """Reads label names as the command line takes them.

    Args:
        text: "0=BG,1=CSF,2=GM,3=WM".

    Returns:
        Label value to class name, in the order of the values.

    Raises:
        UsageError: When a part is not value=name, or a value or name occurs twice.
    """
    names: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not re.fullmatch(r"\d+", value):
            raise UsageError(f"label names must look like 0=BG,1=CSF, got {part.strip()!r}")
        if int(value) in names or name in names.values():
            raise UsageError(f"label names hold {part.strip()!r} twice; name each label once")
        names[int(value)] = name
    return dict(sorted(names.items()))
