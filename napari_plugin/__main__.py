"""`python -m napari_voxpool [FILE ...]`: napari with the panel, and the files opened by voxpool."""

import sys
from pathlib import Path

import napari
from napari.qt import get_qapp

SCREEN_SHARE = 0.9
"""Of the screen, for the window: the picture, three planes and the panel want room."""


def main(paths: list[str]) -> None:
    """Open a viewer and run it until it is closed."""
    viewer = napari.Viewer(title="voxpool")
    screen = get_qapp().primaryScreen().availableSize()
    viewer.window.resize(round(SCREEN_SHARE * screen.width()), round(SCREEN_SHARE * screen.height()))
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    for path in paths:
        panel.volume.open(Path(path))
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1:])
