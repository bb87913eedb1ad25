"""A cross-validation run on disk, read into records."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from voxpool.errors import InputError
from voxpool.metrics import ClassScore, foreground_dice
from voxpool.nets import HEADS as SUPERVOXEL_HEADS

SCHEMA = 1
HEADS = ("base", "control", *SUPERVOXEL_HEADS)
SEGMENTS = (None, "block", "slic")


def _nulls_to_nan(content: Any) -> Any:
    """JSON has no NaN, so the run writes the null of a score for it."""
    if isinstance(content, dict):
        return {key: math.nan if value is None else value for key, value in content.items()}
    return math.nan if content is None else content


_Score = Annotated[float, BeforeValidator(_nulls_to_nan)]


@dataclass(frozen=True)
class Variant:
    """One row of a cross-validation: a network, its reduction, its head and the supervoxels it pools over."""

    id: str
    net: str
    reduction: int | None
    head: str
    segments: str | None


@dataclass(frozen=True)
class FoldResult:
    """How one variant was trained on one fold."""

    fold: int
    parameters: int
    iterations: int
    train_seconds: float
    compactness: float | None
    n_segments: int | None
    seed: int


@dataclass(frozen=True)
class CaseResult:
    """One case, segmented by the network that did not see it.

    Attributes:
        case_id: The case.
        fold: The fold that held it out.
        seconds: Time to segment the volume, supervoxels and pooling included.
        supervoxel_seconds: The supervoxels' share of it.
        num_segments: Number of supervoxels.
        oracle_dice: Dice per foreground class when each supervoxel takes its majority label.
        dice_background: Dice of class 0.
        classes: Scores per foreground class.
    """

    case_id: str
    fold: int
    seconds: float
    supervoxel_seconds: float | None
    num_segments: int | None
    oracle_dice: dict[str, _Score] | None
    dice_background: _Score
    classes: dict[str, Annotated[ClassScore, BeforeValidator(_nulls_to_nan)]]

    @property
    def dice_foreground(self) -> float:
        """Mean Dice over the foreground classes, absent ones excluded."""
        return foreground_dice(self.classes)

    @property
    def dice_with_background(self) -> float:
        """Mean Dice over the foreground classes and the background, absent ones excluded."""
        values = [self.dice_background, *(score.dice for score in self.classes.values())]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    @property
    def oracle_foreground(self) -> float:
        """Mean oracle Dice over the foreground classes; NaN for a variant without supervoxels."""
        known = [value for value in (self.oracle_dice or {}).values() if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class VariantResult:
    """All that a run knows about one variant.

    Attributes:
        variant: The variant.
        folds: The folds that are done, by number.
        cases: Every case of those folds once, sorted by id.
        missing_folds: The folds that the run is to do and has not done.
    """

    variant: Variant
    folds: tuple[FoldResult, ...]
    cases: tuple[CaseResult, ...]
    missing_folds: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every fold that the run is to do is done."""
        return not self.missing_folds


@dataclass(frozen=True)
class Split:
    """The case ids of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class CaseFiles:
    """Where a case lies, as the user gave it."""

    id: str
    images: tuple[str, ...]
    labels: str | None
    subject: str


@dataclass(frozen=True)
class DataInfo:
    """What the data set is called and what its labels mean."""

    name: str
    convention: str
    label_names: dict[int, str]
    cases: int


@dataclass(frozen=True)
class RunResults:
    """A run directory: what was asked, on which cases and folds, and what came out so far.

    Attributes:
        path: The run directory.
        name: Title of the run.
        status: `done` or `running`.
        seed: Seed of the run.
        device: Device that it ran on.
        data: The data set.
        config: Every option of the run.
        versions: Version of each package that matters.
        splits: Case ids of each fold.
        asked_folds: The folds that the run is to do: all, or the ones it was restricted to.
        cases: Files of each case, by id.
        variants: The variants, in the order of the report: networks, reductions, heads, segments.
    """

    path: Path
    name: str
    status: str
    seed: int
    device: str
    data: DataInfo
    config: dict[str, Any]
    versions: dict[str, Any]
    splits: tuple[Split, ...]
    asked_folds: tuple[int, ...]
    cases: dict[str, CaseFiles]
    variants: tuple[VariantResult, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes in the order of their ids."""
        return tuple(name for label, name in sorted(self.data.label_names.items()) if label != 0)

    @property
    def held_out(self) -> list[tuple[int, str]]:
        """Fold and id of every case that the run is to score."""
        return [(fold, case_id) for fold in self.asked_folds for case_id in sorted(self.splits[fold].val)]

    @property
    def complete(self) -> bool:
        """Whether the run is over and every fold that it is to do is done for every variant."""
        return self.status == "done" and all(variant.complete for variant in self.variants)

    def find(self, **wanted: Any) -> VariantResult | None:
        """The first variant whose fields have the wanted values, or None.

        Args:
            **wanted: Fields of `Variant`, such as `net="voxresnet"`.
        """
        for result in self.variants:
            if all(getattr(result.variant, name) == value for name, value in wanted.items()):
                return result
        return None

    def reference(self, variant: Variant, head: str) -> VariantResult | None:
        """The variant without supervoxels that shares network and reduction with another one.

        Args:
            variant: The variant to compare.
            head: `base` or `control`.

        Returns:
            The reference, or None when the run has none or when it is the variant itself.
        """
        found = self.find(net=variant.net, reduction=variant.reduction, head=head)
        return None if found is None or found.variant.id == variant.id else found

    def prediction_path(self, variant_id: str, case: CaseResult) -> Path:
        """Where the predicted labels of a case lie."""
        return self.path / "variants" / variant_id / f"fold{case.fold}" / "predictions" / f"{case.case_id}.nii.gz"


@dataclass(frozen=True)
class _RunFile:
    schema: int
    status: str
    name: str
    data: DataInfo
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = "unknown"


@dataclass(frozen=True)
class _DatasetFile:
    cases: list[CaseFiles]


@dataclass(frozen=True)
class _ResultFile:
    variant: Variant
    fold: int
    parameters: int
    iterations: int
    train_seconds: float
    compactness: float | None
    n_segments: int | None
    seed: int
    cases: list[CaseResult]


def load_run(run_dir: str | Path) -> RunResults:
    """Read a run directory, finished or not.

    Args:
        run_dir: What `voxpool crossval --out` wrote.

    Returns:
        The run, with the folds that are done.

    Raises:
        InputError: If a file is missing, ends early or contradicts another one, or if no fold is done yet.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise InputError(f"{path}: no such run directory; give the folder that 'voxpool crossval --out' wrote")
    run = _read(path / "run.json", _RunFile)
    if run.schema != SCHEMA:
        raise InputError(
            f"{path / 'run.json'}: the run has format {run.schema}, this version reads {SCHEMA}; "
            "report it with the voxpool version that wrote it"
        )
    splits = tuple(_read(path / "folds.json", list[Split]))
    cases = {case.id: case for case in _read(path / "dataset.json", _DatasetFile).cases}
    class_names = [name for label, name in sorted(run.data.label_names.items()) if label != 0]
    asked = tuple(range(len(splits)))
    if only := run.config.get("only_folds"):
        asked = tuple(fold for fold in asked if fold in only)
    asked = tuple(range(len(splits)))
    if only := run.config.get("only_folds"):
        asked = tuple(fold for fold in asked if fold in only)
    variants = [_load_variant(folder, splits, asked, class_names) for folder in sorted((path / "variants").glob("*/"))]
    started = [variant for variant in variants if variant is not None]
    if not started:
        raise InputError(f"{path}: no fold of any variant is done yet; start 'voxpool crossval' on it again to go on")
    return RunResults(
        path=path,
        name=run.name,
        status=run.status,
        seed=run.seed,
        device=run.device,
        data=run.data,
        config=run.config,
        versions=run.versions,
        splits=splits,
        asked_folds=asked,
        cases=cases,
        variants=tuple(sorted(started, key=lambda result: _order(result.variant))),
    )


def _load_variant(
    folder: Path, splits: tuple[Split, ...], asked: tuple[int, ...], class_names: list[str]
) -> VariantResult | None:
    done = {}
    for fold in asked:
        file = folder / f"fold{fold}" / "result.json"
        if file.exists():
            done[fold] = _read(file, _ResultFile)
            _check_result(file, done[fold], fold, splits[fold], class_names)
    if not done:
        return None
    variants = {result.variant for result in done.values()}
    if len(variants) > 1 or next(iter(variants)).id != folder.name:
        raise InputError(
            f"{folder}: its folds belong to {sorted(variant.id for variant in variants)}; "
            "a folder holds one variant, so remove what was copied there"
        )
    return VariantResult(
        variant=variants.pop(),
        folds=tuple(
            FoldResult(
                fold=fold,
                parameters=result.parameters,
                iterations=result.iterations,
                train_seconds=result.train_seconds,
                compactness=result.compactness,
                n_segments=result.n_segments,
                seed=result.seed,
            )
            for fold, result in done.items()
        ),
        cases=tuple(sorted((case for result in done.values() for case in result.cases), key=lambda case: case.case_id)),
        missing_folds=tuple(fold for fold in asked if fold not in done),
    )


def _check_result(file: Path, result: _ResultFile, fold: int, split: Split, class_names: list[str]) -> None:
    found = sorted(case.case_id for case in result.cases)
    if result.fold != fold or found != sorted(split.val):
        odd = sorted(set(found) ^ set(split.val)) or found
        raise InputError(
            f"{file}: its cases are not the ones that fold {fold} of folds.json holds out "
            f"(differing: {', '.join(odd[:3])}); remove the file and run the fold again"
        )
    for case in result.cases:
        if list(case.classes) != class_names and sorted(case.classes) != sorted(class_names):
            raise InputError(
                f"{file}: case {case.case_id} is scored on {sorted(case.classes)}, but run.json names "
                f"{class_names}; remove the file and run the fold again"
            )


def _order(variant: Variant) -> tuple[Any, ...]:
    """The paper's network first, reductions from full to small, heads and segments as in its Table 1."""
    return (
        variant.net != "voxresnet",
        variant.net,
        variant.reduction or 0,
        HEADS.index(variant.head) if variant.head in HEADS else len(HEADS),
        variant.head,
        SEGMENTS.index(variant.segments) if variant.segments in SEGMENTS else len(SEGMENTS),
        variant.id,
    )


def _read(path: Path, kind: Any) -> Any:
    """Read a JSON file of the run into records of a kind."""
    remedy = (
        "remove the file and start the run again to do this fold anew"
        if path.name == "result.json"
        else "restore it, or start the run again in a new folder"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a folder that 'voxpool crossval --out' wrote") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: found bytes that are not UTF-8 text; {remedy}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not whole JSON ({error.msg}, line {error.lineno}); {remedy}") from None
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise InputError(f"{path}: {place}: {first['msg']}; {remedy}") from None
