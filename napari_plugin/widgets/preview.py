"""The outline of what a click would change, under the mouse."""

from typing import TYPE_CHECKING

import numpy as np

from napari_voxpool.widgets.layers import SessionLayers

if TYPE_CHECKING:
    from napari.layers import Labels


class Preview:
    """Outlines supervoxels in a layer of its own, made when it is first needed.

    Args:
        layers: The session's layers.
    """

    def __init__(self, layers: SessionLayers) -> None:
        self.layers = layers
        self.layer: Labels | None = None
        self._ids: tuple[int, ...] = ()
        self._where = np.empty(0, np.int64)

    def show(self, ids: list[int]) -> None:
        """Outline these supervoxels and no others."""
        regions = self.layers.session.correction.regions
        if regions is None or tuple(ids) == self._ids or not self.layers.there:
            return
        self._ids = tuple(ids)
        if self.layer is None or self.layer not in self.layers.viewer.layers:
            self.layer = self.layers.add_outline("under the mouse", np.zeros(regions.segments.shape, np.uint8))
            self._where = np.empty(0, np.int64)
        flat = self.layer.data.reshape(-1)
        flat[self._where] = 0
        self._where = regions.voxels(ids)
        flat[self._where] = 1
        self.layer.refresh(extent=False)

    def hide(self) -> None:
        """Outline nothing."""
        if self.layer is not None:
            self.show([])
