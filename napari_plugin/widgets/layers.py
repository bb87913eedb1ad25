"""The layers that show a session: tissues, supervoxel borders, doubt."""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_voxpool.display import METADATA_KEY
from napari_voxpool.history import Edit
from napari_voxpool.session import SegmentationSession
from napari_voxpool.settings import setting
from napari_voxpool.tissues import colormap_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer


BORDER_OPACITY = 0.35
"""As in the settings page."""


class SessionLayers:
    """Adds the layers of a session on top of its scan, and keeps them as the session is.

    Args:
        viewer: The viewer.
        scan: The layer that was segmented.
        session: What is shown.
    """

    def __init__(self, viewer: "Viewer", scan: "Image", session: SegmentationSession) -> None:
        self.viewer = viewer
        self.session = session
        self.scan = scan
        correction = session.correction
        names = correction.label_names
        self.tissues: Labels = viewer.add_labels(
            correction.labels,
            name=f"{scan.name} tissues",
            opacity=0.5,
            colormap=colormap_of(names),
            features={"index": list(names), "name": list(names.values())},
            metadata={METADATA_KEY: scan.metadata.get(METADATA_KEY)},
            **_place(scan),
        )
        self.borders: Labels | None = None
        self.doubt: Image | None = None
        viewer.layers.selection.active = self.tissues

    @property
    def there(self) -> bool:
        """Whether the layer of the tissues is still open."""
        return self.tissues in self.viewer.layers

    def refresh(self, edit: Edit | None) -> None:
        """Draw what an edit changed."""
        if edit is not None:
            self.tissues.refresh(extent=False)

    def show_borders(self, visible: bool) -> None:
        """Show or hide the borders of the supervoxels."""
        regions = self.session.correction.regions
        if regions is None:
            return
        if self.borders is None or self.borders not in self.viewer.layers:
            if not visible:
                return
            self.borders = self.add_outline("supervoxels", regions.segments + 1)  # 0 is what is not drawn
            self.borders.opacity = setting("display", "border_opacity", BORDER_OPACITY)
        self.borders.visible = visible

    def show_doubt(self, visible: bool) -> None:
        """Show or hide how doubtful each supervoxel is."""
        regions = self.session.correction.regions
        if regions is None:
            return
        if self.doubt is None or self.doubt not in self.viewer.layers:
            if not visible:
                return
            self.doubt = self.viewer.add_image(
                regions.paint(regions.uncertainty),
                name=f"{self.scan.name} doubt",
                colormap="inferno",
                blending="additive",
                contrast_limits=(0, max(0.01, float(regions.uncertainty.max()))),
                **_place(self.scan),
            )
            self.viewer.layers.selection.active = self.tissues
        self.doubt.visible = visible

    def add_outline(self, name: str, data: np.ndarray) -> "Labels":
        """Add a layer that draws the edges of what is not 0; the tissues stay the layer that is worked on."""
        layer = self.viewer.add_labels(
            data, name=f"{self.scan.name} {name}", colormap={None: "white", 0: "transparent"}, **_place(self.scan)
        )
        layer.contour = 1
        layer.editable = False
        self.viewer.layers.selection.active = self.tissues
        return layer

    def go_to(self, index: tuple[int, ...]) -> None:
        """Move the shown planes to a voxel."""
        self.viewer.dims.point = tuple(np.asarray(self.tissues.data_to_world(index)))

    def index_at(self, position: tuple[float, ...]) -> tuple[int, ...]:
        """The voxel at a place in the world."""
        return tuple(int(each) for each in np.round(self.tissues.world_to_data(position)))


def _place(layer: "Image") -> dict[str, Any]:
    """Where a layer lies, so that another can lie on it."""
    place = {key: getattr(layer, key) for key in ("scale", "translate", "rotate", "shear", "units", "axis_labels")}
    return {**place, "affine": layer.affine.affine_matrix}
