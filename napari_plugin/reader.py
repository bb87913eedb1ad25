"""Opens volumes of every format and DICOM folders the right way up."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
from napari.utils.notifications import show_error

from napari_voxpool.display import layer_of_volume, show_as_set
from napari_voxpool.failures import sentence_of
from voxpool.errors import VoxpoolError
from voxpool.io import Series, Volume, is_dicom_file, list_series, read_series, read_volume, stem

_LOOKED_AT = 20  # files of a folder, to see whether it holds DICOM


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """Return the function that reads these files and folders; npe2's reader hook.

    Returns:
        None if one of them is neither a volume's file nor a folder of DICOM files.
    """
    readable = all(stem(Path(each).name) is not None or _is_dicom_folder(each) for each in _paths(path))
    return read_for_window if readable else None


def read_for_window(path: str | Sequence[str]) -> list[Any]:
    """As `read_layers`, for napari's menu: what cannot be used becomes a notice and adds no layer."""
    try:
        return read_layers(path)
    except (VoxpoolError, OSError, MemoryError) as error:
        show_error(sentence_of(error))
        return [(None,)]


def read_layers(path: str | Sequence[str]) -> list[Any]:
    """Read one image layer per file, and per chosen series of a folder; none where the choice was cancelled.

    Args:
        path: One path or several.

    Raises:
        InputError: If a file cannot be used.
    """
    layers = []
    for each in _paths(path):
        name = stem(Path(each).name)
        if name is None:
            layers += [layer_of_volume(volume, title) for volume, title in _read_folder(each)]
        else:
            layers.append(layer_of_volume(read_volume(each), name))
    viewer = napari.current_viewer()
    if viewer is not None and not viewer.layers:
        show_as_set(viewer)
    # npe2 takes an empty answer for a failure; this is how a reader says that there is nothing to add
    return layers or [(None,)]


def _read_folder(folder: str) -> list[tuple[Volume, str]]:
    """The volume of a folder, or that of the series which the user chooses."""
    found = list_series(folder)
    volumes = [series for series in found if series.problem is None]
    chosen: Series | None = found[0]
    if len(found) > 1 and len(volumes) != 1:
        from napari_voxpool.widgets.series import choose_series

        chosen = choose_series(found)
    return [] if chosen is None else [(read_series(chosen), chosen.description or "series")]


def _is_dicom_folder(path: str) -> bool:
    """Whether one of the first files of a folder, or of the folders in it, is DICOM."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    looked_at = 0
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        if is_dicom_file(file):
            return True
        looked_at += 1
        if looked_at == _LOOKED_AT:
            break
    return False


def _paths(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path
