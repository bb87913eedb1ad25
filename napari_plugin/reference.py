"""A layer as the reference that a result is compared with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_voxpool.display import Shown, grid_of, space_of
from voxpool.data.native import to_native
from voxpool.errors import InputError
from voxpool.metrics import score_case

if TYPE_CHECKING:
    from napari.layers import Image, Labels

_WHOLE = 1e-4
_SAME_MM = 1e-2


def reference_of(layer: "Image | Labels", scan: "Image", onto: Shown) -> tuple[np.ndarray, bool]:
    """Labels of a layer on the grid of a scan.

    Args:
        layer: A label map, as image or as labels.
        scan: The scan's layer.
        onto: What it shows.

    Returns:
        Class ids in the order of the scan's layer, (S, A, R), and whether they had to be resampled (to the nearest).

    Raises:
        InputError: If the layer is no 3D volume of whole numbers.
    """
    data = np.asarray(layer.data)
    if data.ndim != 3:
        raise InputError(f"layer {layer.name} has {data.ndim} dimensions; a reference is one 3D label map")
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or np.abs(data - np.rint(data)).max() > _WHOLE:
            raise InputError(f"layer {layer.name} holds fractions; a reference is a label map of whole numbers")
        data = np.rint(data)
    if _lies_on(layer, scan):
        return data.astype(np.int32), False
    grid = grid_of(layer)
    geometry, stored = grid.geometry, grid.store(data.astype(np.int32))
    wanted = onto.volume.geometry
    if geometry.matches(wanted):
        return onto.show(stored), False
    return onto.show(to_native(stored, geometry.affine, wanted)), True


def surface_distances(
    labels: np.ndarray, reference: np.ndarray, names: dict[int, str], spacing: Sequence[float]
) -> dict[str, float]:
    """HD95 in mm of each tissue: seconds, so for a thread.

    Args:
        labels: Class ids, (S, A, R).
        reference: Class ids of the same shape.
        names: Name of each class.
        spacing: Voxel size in mm.
    """
    scores = score_case(labels, reference, spacing=spacing, label_names=names)
    return {name: score.hd95_mm for name, score in scores.items()}


def _lies_on(layer: "Image | Labels", scan: "Image") -> bool:
    """Whether a layer made in napari covers the scan voxel by voxel; one from a file has its own place in the body."""
    if space_of(layer) is not None or layer.data.shape != scan.data.shape:
        return False
    corners = [(0, 0, 0), scan.data.shape]
    return all(np.allclose(layer.data_to_world(each), scan.data_to_world(each), atol=_SAME_MM) for each in corners)
