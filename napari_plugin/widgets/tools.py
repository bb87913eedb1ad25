"""What the mouse does on the picture: pick a supervoxel, brush over several, fill; and voxels painted by napari."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_voxpool.history import Edit
from napari_voxpool.widgets.layers import SessionLayers
from napari_voxpool.widgets.preview import Preview
from napari_voxpool.widgets.status import StatusLine
from voxpool.errors import VoxpoolError

if TYPE_CHECKING:
    from napari.layers import Labels

NAVIGATE, PICK, BRUSH, FILL, VOXELS = "Navigate", "Supervoxel", "Supervoxel brush", "Fill", "Voxel brush"
TOOLS = (NAVIGATE, PICK, BRUSH, FILL, VOXELS)
CLICK_PIXELS = 3
"""The mouse moved less between press and release: it was a click, not a drag."""

HOVER_MS = 60
"""The outline follows the mouse no more often than that."""


class Tools:
    """Turns clicks and strokes on the layer of tissues into edits of its session.

    Args:
        layers: The session's layers.
        edited: Called after each attempt, with the edit or None.
        status: Where it is told why a click changes nothing.
        hovered: Called with what lies under the mouse.

    Attributes:
        tool: One of `TOOLS`.
        label: The tissue that is given.
        level: How large the supervoxels are: 0 the finest.
        tolerance: How alike neighbours must be to be picked along, or None for the supervoxel alone.
    """

    def __init__(
        self,
        layers: SessionLayers,
        edited: Callable[[Edit | None], None],
        status: StatusLine,
        hovered: Callable[[str], None],
    ) -> None:
        self.layers = layers
        self.session = layers.session
        self.edited = edited
        self.status = status
        self.tool = NAVIGATE
        self.label = 1
        self.level = 0
        self.tolerance: float | None = None
        layers.tissues.mouse_drag_callbacks.append(self._drag)
        layers.tissues.mouse_move_callbacks.append(self._hover)
        layers.tissues.events.paint.connect(self._painted)
        self.preview = Preview(layers)
        self.hovered = hovered
        self._place: tuple[float, ...] | None = None
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(HOVER_MS)
        self._soon.timeout.connect(self.show_preview)

    def take(self, tool: str) -> None:
        """Take a tool into the hand."""
        self.tool = tool
        tissues = self.layers.tissues
        tissues.selected_label = self.label
        tissues.mode = "paint" if tool == VOXELS else "pan_zoom"
        # with a brush in the hand, dragging must not move the picture
        tissues.mouse_pan = tool != BRUSH
        self._place = None
        self.show_preview()

    def choose(self, label: int) -> None:
        """Choose the tissue that is given."""
        self.label = label
        self.layers.tissues.selected_label = label

    def ids_at(self, index: tuple[int, ...]) -> list[int]:
        """The supervoxels that a click on a voxel means; none outside the brain."""
        regions = self.session.correction.regions
        number = None if regions is None else regions.at(index)
        if regions is None or number is None:
            return []
        if self.tolerance is not None:
            return regions.similar(number, self.tolerance)
        return regions.family(number, self.level)

    def show_preview(self) -> None:
        """Outline what a click under the mouse would change, and say what it is."""
        pointing = self.tool in (PICK, BRUSH) and self.layers.viewer.dims.ndisplay == 2
        if not pointing or self._place is None:
            self.preview.hide()
            self.hovered("")
            return
        index = self.layers.index_at(self._place)
        ids = self.ids_at(index)
        self.preview.show(ids)
        self.hovered(self.session.describe(ids, index) if ids else "")

    def _hover(self, layer: "Labels", event: Any) -> None:
        if self.tool in (PICK, BRUSH):
            self._place = event.position
            if not self._soon.isActive():
                self._soon.start()

    def _drag(self, layer: "Labels", event: Any) -> Generator[None, None, None]:
        if event.button != 1 or event.modifiers or self.tool in (NAVIGATE, VOXELS):
            return
        if self.layers.viewer.dims.ndisplay != 2:
            self.status.say("Corrections are made in the flat view; leave 3D first.")
            return
        start, places = np.array(event.pos), [event.position]
        yield
        while event.type == "mouse_move":
            places.append(event.position)
            yield
        if self.tool == BRUSH:
            ids: dict[int, None] = {}
            for place in places:
                ids.update(dict.fromkeys(self.ids_at(self.layers.index_at(place))))
            self._give(list(ids))
        elif np.linalg.norm(np.array(event.pos) - start) < CLICK_PIXELS:
            index = self.layers.index_at(places[0])
            if self.tool == PICK:
                self._give(self.ids_at(index))
            else:
                self._fill(index)

    def _give(self, ids: list[int]) -> None:
        if not ids:
            self.status.say("There is no supervoxel here.")
            return
        already = f"It is {self.session.correction.label_names[self.label]} already."
        self._edit(lambda: self.session.give(ids, self.label), already)

    def _fill(self, index: tuple[int, ...]) -> None:
        labels = self.session.correction.labels
        if any(not 0 <= place < size for place, size in zip(index, labels.shape, strict=True)):
            self.status.say("There is no voxel here.")
        elif labels[index] == 0:
            self.status.say("Only tissue can be filled; this is background.")
        else:
            self._edit(lambda: self.session.fill(index, self.label))

    def _painted(self) -> None:
        """A stroke of napari's own brush has ended: it becomes an edit like any other."""
        self._edit(self.session.take_over)

    def _edit(self, act: Callable[[], Edit | None], nothing: str = "") -> None:
        """Do an edit; say why where there is none."""
        try:
            edit = act()
        except VoxpoolError as error:
            self.layers.tissues.refresh(extent=False)  # it was taken back
            self.status.explain(error)
            return
        if edit is None and nothing:
            self.status.say(nothing)
        self.edited(edit)
