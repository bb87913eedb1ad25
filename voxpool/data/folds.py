"""Cross-validation folds: made from a seed, read, written and checked."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxpool.errors import InputError, UsageError
from voxpool.io.atomic import write_json

from .cases import Case, Finding


@dataclass(frozen=True)
class Fold:
    """One split of a data set.

    Attributes:
        train: Ids of the cases to train on.
        test: Ids of the cases held out.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]


def make_folds(
    cases: Sequence[Case], k: int, *, seed: int = 0, group_by: Literal["subject"] | None = "subject"
) -> list[Fold]:
    """Deals cases into k folds of nearly equal size; each case is held out exactly once.

    *Determinism:* depends on the ids, subjects, k and seed alone, not on the order of the cases, the
    platform or the version of any library: the cases are dealt in the order of a hash.

    Args:
        cases: What to split.
        k: Number of folds, 2 or more.
        seed: Another seed gives another split.
        group_by: "subject" keeps all cases of a subject in one fold; None deals single cases.

    Returns:
        k folds, ids in the order of `cases`.

    Raises:
        UsageError: When k is below 2 or `group_by` unknown.
        InputError: E127 for ids that occur twice, E129 when there are fewer cases (or subjects) than folds.
    """
    if k < 2:
        raise UsageError(f"cross-validation needs 2 folds or more, got {k}")
    if group_by not in ("subject", None):
        raise UsageError(f'group_by must be "subject" or None, got {group_by!r}')
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
        raise InputError(f"case id {twice[0]!r} occurs more than once; give each case its own id (E127)")
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.subject if group_by else case.id, []).append(case.id)
    if len(groups) < k:
        things = "subjects" if group_by and len(groups) < len(ids) else "cases"
        raise InputError(
            f"{k} folds need at least {k} {things}, found {len(groups)}; ask for fewer folds or add cases (E129)"
        )
    # The largest groups are dealt first, each to the fold that is smallest so far: sizes stay balanced.
    order = sorted(groups, key=lambda group: (-len(groups[group]), _rank(seed, group)))
    tests: list[set[str]] = [set() for _ in range(k)]
    for group in order:
        min(tests, key=len).update(groups[group])
    return [Fold(tuple(i for i in ids if i not in test), tuple(i for i in ids if i in test)) for test in tests]


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def read_folds(path: str | os.PathLike[str]) -> list[Fold]:
    """Reads folds from JSON: a list of {"train": [ids], "val": [ids]}, as nnU-Net's splits_final.json.

    Raises:
        InputError: E128, when the file is missing or has another form.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror}); check the path {path} (E101)") from None
    except ValueError as error:
        raise InputError(f"{path.name}: is not JSON ({error}); write a list of folds (E128)") from None
    wanted = 'wanted a list of {"train": [ids], "val": [ids]}'
    if not isinstance(content, list) or not content:
        raise InputError(f"{path.name}: holds no list of folds, {wanted} (E128)")
    folds = []
    for number, entry in enumerate(content):
        sides = [entry.get(side) if isinstance(entry, dict) else None for side in ("train", "val")]
        for side in sides:
            if not isinstance(side, list) or not all(isinstance(case_id, str) for case_id in side):
                raise InputError(f"{path.name}: fold {number} has another form, {wanted} (E128)")
        train, test = sides
        folds.append(Fold(tuple(train or ()), tuple(test or ())))
    return folds


def write_folds(path: str | os.PathLike[str], folds: Sequence[Fold]) -> None:
    """Writes folds as `read_folds` reads them, atomically.

    Raises:
        ResourceError: When the file cannot be written.
    """
    write_json(path, [{"train": list(fold.train), "val": list(fold.test)} for fold in folds])


def check_folds(folds: Sequence[Fold], cases: Sequence[Case]) -> None:
    """Refuses folds that do not fit the cases.

    Raises:
        InputError: With every problem that `fold_findings` finds.
    """
    findings = fold_findings(folds, cases)
    if findings:
        raise InputError("; ".join(f"{finding.message} ({finding.code})" for finding in findings))


def fold_findings(folds: Sequence[Fold], cases: Sequence[Case]) -> list[Finding]:
    """Lists what is wrong with folds: every case must be held out once, no subject be on both sides.

    Args:
        folds: The split.
        cases: All cases of the data set.

    Returns:
        Errors E126 (subject on both sides), E128 (unknown case, case held out twice or never, empty side)
        and E129 (fewer cases than folds).
    """
    findings: list[Finding] = []

    def add(code: str, message: str, case_id: str | None = None) -> None:
        findings.append(Finding("error", code, case_id, message))

    subjects = {case.id: case.subject for case in cases}
    if len(folds) < 2:
        add("E129", f"cross-validation needs 2 folds or more, the split has {len(folds)}")
    if len(cases) < len(folds):
        add(
            "E129",
            f"{len(folds)} folds need at least {len(folds)} cases, found {len(cases)}; ask for fewer folds",
        )
    held_out: dict[str, list[int]] = {}
    for number, fold in enumerate(folds):
        for side, ids in (("train", fold.train), ("test", fold.test)):
            if not ids:
                add("E128", f"fold {number} has no {side} case; give it one or drop the fold")
            unknown = sorted(set(ids) - set(subjects))
            if unknown:
                add("E128", f"fold {number} names unknown {side} cases: {_some(unknown)}; correct the ids")
            if len(set(ids)) < len(ids):
                twice = sorted({i for i in ids if ids.count(i) > 1})
                add("E128", f"fold {number} names {side} cases twice: {_some(twice)}; name each once")
        for case_id in dict.fromkeys(fold.test):
            held_out.setdefault(case_id, []).append(number)
        known = [{subjects[i] for i in ids if i in subjects} for ids in (fold.train, fold.test)]
        if both := sorted(known[0] & known[1]):
            add(
                "E126",
                f"fold {number} trains and tests on the same subjects: {_some(both)}; regroup the cases",
            )
    for case_id, numbers in held_out.items():
        if len(numbers) > 1:
            add("E128", f"case {case_id} is held out by folds {numbers}; keep it in one", case_id)
    if missing := [case.id for case in cases if case.id not in held_out]:
        add("E128", f"no fold holds out {_some(missing)}; every case is scored once, so add or remove them")
    return findings


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
