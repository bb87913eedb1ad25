"""Opens NIfTI volumes the right way up."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari

from napari_voxpool.display import layer_of_volume, show_radiological
from voxpool.io import read_volume

ENDINGS = (".nii.gz", ".nii")


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """Return the function that reads these files; npe2's reader hook.

    Returns:
        None if one of them is no NIfTI file.
    """
    return read_layers if all(_name(each) for each in _paths(path)) else None


def read_layers(path: str | Sequence[str]) -> list[Any]:
    """Read one image layer per file.

    Args:
        path: One path or several.

    Raises:
        InputError: If a file cannot be used.
    """
    layers = [layer_of_volume(read_volume(each), str(_name(each))) for each in _paths(path)]
    viewer = napari.current_viewer()
    if viewer is not None:
        show_radiological(viewer)
    return layers


def _paths(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path


def _name(path: str) -> str | None:
    """The file's name without its ending, or None if it is no NIfTI file."""
    name = Path(path).name
    return next((name[: -len(end)] for end in ENDINGS if name.lower().endswith(end)), None)
