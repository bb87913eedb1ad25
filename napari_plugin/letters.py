"""Which side of the patient lies at which edge of the picture, from what is shown and how the camera looks at it."""

from typing import TYPE_CHECKING, NamedTuple

from napari_voxpool.display import AXES

if TYPE_CHECKING:
    from napari.components import ViewerModel

OPPOSITE = {"S": "I", "A": "P", "R": "L"}


class Edges(NamedTuple):
    """Letters R, L, A, P, S, I at the edges of a picture."""

    top: str
    bottom: str
    left: str
    right: str


def edges_of(viewer: "ViewerModel") -> Edges | None:
    """The letters at the edges, or None in 3D, where the edges have no names, and for other than three axes."""
    if viewer.dims.ndisplay != 2 or viewer.dims.ndim != len(AXES):
        return None
    up, across = (AXES[axis] for axis in viewer.dims.displayed)
    upwards, sidewards = (str(each) for each in viewer.scene.camera.orientation2d)
    top, bottom = (up, OPPOSITE[up]) if upwards == "up" else (OPPOSITE[up], up)
    left, right = (across, OPPOSITE[across]) if sidewards == "left" else (OPPOSITE[across], across)
    return Edges(top, bottom, left, right)
