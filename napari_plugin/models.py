"""The models that can segment: the one that comes with voxpool, those a person imported, the folds of a run."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from napari_voxpool.programs import load_programs
from voxpool.errors import UsageError
from voxpool.io import write_json

MODELS_VARIABLE = "VOXPOOL_MODELS"
"""Environment variable that names another folder for imported models."""

_BUNDLED = "bundled"
_USED = "used.json"
"""Folders that were chosen where they lie, such as those of runs."""


@dataclass(frozen=True)
class Model:
    """A model to choose.

    Attributes:
        title: What it is called in the list.
        path: "bundled", or the folder that `Segmenter.load` takes.
    """

    title: str
    path: str


BUNDLED = Model("Any MRI of a head (comes with voxpool)", _BUNDLED)


def models_folder() -> Path:
    """Where imported models lie: in the user's own data folder, or in that of `MODELS_VARIABLE`."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named) if named else user_data_path("voxpool", appauthor=False) / "models"


def list_models() -> list[Model]:
    """The bundled model, then all others by name; what is gone from the disk is left out."""
    return [BUNDLED, *sorted(_others(), key=lambda model: model.title)]


def import_model(path: Path) -> Model:
    """Make a model choosable from now on: a zip file is unpacked and checked, a folder is used where it lies.

    Args:
        path: Zip file of a model package, a package's folder, or the folder of a run's variant with all its folds.

    Raises:
        ModelError: If it is refused.
        UsageError: If a model of that name is there already.
    """
    load_programs()
    from voxpool.model_package import load_models, unpack_package

    if path.is_dir():
        load_models(path)
        used = [each for each in _used() if each != str(path.resolve())]
        models_folder().mkdir(parents=True, exist_ok=True)
        write_json(models_folder() / _USED, [*used, str(path.resolve())])
        return _model_of(path.resolve())
    place = models_folder() / path.stem
    if place.exists():
        raise UsageError(f"a model {path.stem} is there already; remove {place}, or rename the file")
    return _model_of(unpack_package(path, place))


def describe_model(path: str) -> str:
    """What one must know of a model before using it; reads it whole, and its checksums with it.

    Args:
        path: As `Model.path`.

    Raises:
        ModelError: If it is refused.
    """
    load_programs()
    from voxpool.model_package import load_models, weights_sha256

    nets, info = load_models(path)
    tissues = ", ".join(name for label, name in info.label_names.items() if label)
    facts = [f"{', '.join(info.channels)} → {tissues}", f"{info.net} with head {info.head}"]
    if len(nets) > 1:
        facts.append(f"{len(nets)} folds together")
    if "data" in info.training:
        facts.append(f"trained on {_named(info.training['data'])}")
    size = sum(parameter.numel() for net in nets for parameter in net.parameters())
    return f"{'; '.join(facts)}; {size / 1e6:.2f} million weights; SHA-256 {weights_sha256(path)[:16]}…"


def _others() -> Iterator[Model]:
    folder = models_folder()
    if folder.is_dir():
        yield from (_model_of(each) for each in folder.iterdir() if (each / "model.json").is_file())
    yield from (_model_of(Path(each)) for each in _used() if Path(each).is_dir())


def _used() -> list[str]:
    try:
        found = json.loads((models_folder() / _USED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _model_of(path: Path) -> Model:
    # a fold's package is called "model" by all runs
    title = " / ".join(path.parts[-3:-1]) if path.name == "model" else path.name
    return Model(title, str(path))


def _named(data: object) -> str:
    """What a model was trained on: a data set by its name, or how many files."""
    return data if isinstance(data, str) else f"{len(data)} volumes" if isinstance(data, list) else "unnamed data"
