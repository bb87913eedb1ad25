"""`python -m napari_voxpool [FILE ...]`: napari with the panel, and the files opened by voxpool."""

import sys
from pathlib import Path

import napari


def main(paths: list[str]) -> None:
    """Open a viewer and run it until it is closed."""
    viewer = napari.Viewer(title="voxpool")
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    for path in paths:
        panel.volume.open(Path(path))
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1:])
