"""How a volume is shown: as (superior, anterior, right) planes, patient's right on the left of the screen.

napari cannot slice along oblique axes, so a volume is shown along the body axes nearest to its own: its
voxels are reordered and flipped, never resampled. The layer keeps the file's geometry in `metadata`, and the
way back is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_voxpool.settings import setting
from voxpool.errors import InputError
from voxpool.io import Geometry, HeaderCodes, Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

METADATA_KEY = "voxpool"
AXES = ("S", "A", "R")

CONVENTIONS = ("radiological", "neurological")

_OBLIQUE = 1  # degrees


@dataclass(frozen=True)
class FileSpace:
    """Where a shown volume comes from, all but its voxels.

    Attributes:
        geometry: Grid of the file.
        header: Codes of the file, None for a volume made in memory.
        path: The file, None for a volume made in memory.
        sources: Its DICOM files, or none.
        notices: What the reader noticed, one sentence each.
    """

    geometry: Geometry
    header: HeaderCodes | None
    path: Path | None
    sources: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def layer_of_volume(volume: Volume, name: str) -> tuple[np.ndarray, dict[str, Any], str]:
    """Return a volume as napari's layer data: the array (S, A, R), the layer's options, "image"."""
    ras = volume.geometry.ras()
    options = {
        "name": name,
        "scale": ras.spacing[::-1],
        "translate": tuple(float(mm) for mm in ras.affine[:3, 3][::-1]),
        "units": ("mm",) * 3,
        "axis_labels": AXES,
        "metadata": {
            METADATA_KEY: FileSpace(volume.geometry, volume.header, volume.path, volume.sources, volume.notices)
        },
    }
    return volume.geometry.to_ras(volume.array).T, options, "image"


@dataclass(frozen=True)
class Grid:
    """The grid of a 3D layer's voxels, and how they are ordered there.

    Attributes:
        geometry: The file's own grid where voxpool opened the file; else that of napari's world.
        turned: Whether the layer shows it along the body axes (True) or its axes merely in reverse order.
    """

    geometry: Geometry
    turned: bool

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along the layer's axes, (S, A, R)."""
        return (self.geometry.ras() if self.turned else self.geometry).spacing[::-1]

    def show(self, array: np.ndarray) -> np.ndarray:
        """An array of the grid as the layer orders it, (S, A, R)."""
        return self.geometry.to_ras(array).T if self.turned else array.T

    def store(self, array: np.ndarray) -> np.ndarray:
        """An array (S, A, R) of the layer as the grid orders it."""
        return self.geometry.from_ras(array.T) if self.turned else np.ascontiguousarray(array.T)


@dataclass(frozen=True)
class Shown:
    """The volume that an image layer shows, and how its voxels are ordered there.

    Attributes:
        volume: On the layer's `Grid`.
        turned: As in `Grid`.
    """

    volume: Volume
    turned: bool

    @property
    def grid(self) -> Grid:
        """The layer's grid."""
        return Grid(self.volume.geometry, self.turned)

    def show(self, array: np.ndarray) -> np.ndarray:
        """An array of the volume's grid as the layer orders it, (S, A, R)."""
        return self.grid.show(array)

    def store(self, array: np.ndarray) -> np.ndarray:
        """An array (S, A, R) of the layer as the volume's grid orders it."""
        return self.grid.store(array)


def shown_by(layer: "Image") -> Shown:
    """Return the volume that an image layer shows.

    A layer from elsewhere is taken to have the axes superior, anterior, right in napari's world, in mm.

    Raises:
        InputError: If the layer is no single 3D volume, or holds NaN.
    """
    if layer.rgb or layer.multiscale or layer.ndim != 3:
        kind = "a colour image" if layer.rgb else "multiscale" if layer.multiscale else f"{layer.ndim}-dimensional"
        raise InputError(f"layer {layer.name} is {kind}; choose a layer that holds one 3D volume")
    data = np.asarray(layer.data)
    if np.iscomplexobj(data):
        raise InputError(f"layer {layer.name} holds complex numbers; choose a layer of real numbers")
    grid = grid_of(layer)
    array = grid.store(data).astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"layer {layer.name} holds NaN or infinite voxels; replace them before segmenting")
    space = space_of(layer) or FileSpace(grid.geometry, None, None)
    return Shown(Volume(array, grid.geometry, space.header, space.path, sources=space.sources), grid.turned)


def grid_of(layer: "Image | Labels") -> Grid:
    """The grid of a 3D layer's voxels: that of its file, or napari's own."""
    space = space_of(layer)
    if space is not None:
        return Grid(space.geometry, turned=True)
    return Grid(Geometry(tuple(layer.data.shape)[::-1], _world_affine(layer)), turned=False)


def describe(layer: "Image") -> str:
    """What one must know of a volume before trusting its picture: grid, voxel size, how it is stored, what is odd."""
    space = space_of(layer)
    if space is None:
        return ""
    geometry = space.geometry
    grid = " × ".join(str(count) for count in geometry.shape)
    voxel = " × ".join(f"{size:.2f}" for size in geometry.spacing)
    facts = [f"{grid} voxels of {voxel} mm, stored {geometry.orientation}"]
    if geometry.obliquity_degrees > _OBLIQUE:
        facts.append(f"oblique by {geometry.obliquity_degrees:.0f}°: shown along the nearest axes, saved exactly")
    notices = [notice for notice in space.notices if "oblique" not in notice]
    return "; ".join(facts) + "".join(f". Note: {notice}" for notice in notices)


def body_position(layer: "Image", position: Sequence[float]) -> tuple[float, float, float] | None:
    """Where a place of the viewer lies in the body: mm to the right, to the front and up, by the file's own affine.

    Args:
        layer: A layer that voxpool opened.
        position: The place in napari's world, (S, A, R).

    Returns:
        None outside the volume, and for layers from elsewhere.
    """
    space = space_of(layer)
    if space is None:
        return None
    index = np.asarray(layer.world_to_data(position))
    if np.any(index < -0.5) or np.any(index > np.array(layer.data.shape) - 0.5):
        return None
    x, y, z = (space.geometry.ras().affine @ [*index[::-1], 1])[:3]
    return float(x), float(y), float(z)


def space_of(layer: "Image | Labels") -> FileSpace | None:
    """What voxpool knows of a layer's file; None for layers from elsewhere, and where the layer is not its volume."""
    space = layer.metadata.get(METADATA_KEY)
    if not isinstance(space, FileSpace) or space.geometry.ras().shape != tuple(layer.data.shape)[::-1]:
        return None
    return space


def show_radiological(viewer: "ViewerModel") -> None:
    """Turn the camera so that anterior (or superior) is up and the patient's right is on the left."""
    viewer.scene.camera.orientation2d = ("up", "left")


def show_neurological(viewer: "ViewerModel") -> None:
    """Turn the camera so that the patient's right is on the right."""
    viewer.scene.camera.orientation2d = ("up", "right")


def show_as_set(viewer: "ViewerModel") -> None:
    """Turn the camera as the settings page says."""
    radiological = setting("display", "convention", CONVENTIONS[0]) == CONVENTIONS[0]
    (show_radiological if radiological else show_neurological)(viewer)


def is_radiological(viewer: "ViewerModel") -> bool:
    """Whether the patient's right is on the left of the screen."""
    return str(viewer.scene.camera.orientation2d[1]) == "left"


def _world_affine(layer: "Image | Labels") -> np.ndarray:
    """The affine of the transposed data: napari's world is (S, A, R), an affine's is (R, A, S)."""
    origin = np.asarray(layer.data_to_world((0, 0, 0)))
    steps = [np.asarray(layer.data_to_world(index)) - origin for index in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3] = np.stack(steps, axis=1)[::-1, ::-1]
    affine[:3, 3] = origin[::-1]
    return affine
