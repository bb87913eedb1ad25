"""Draw the picture of the viewer: a synthetic head, segmented by the bundled model, in three planes.

Run from the repository root with a folder of whole-head label maps, on a display:

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_viewer_figure.py MAPS
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
from napari.qt import get_qapp
from PIL import Image

from napari_voxpool.display import layer_of_volume
from napari_voxpool.widgets.tools import PICK
from voxpool.data.synthesis import SynthesisConfig, draw_image, draw_structures, read_head_map
from voxpool.io import Geometry, Volume

FIGURE = Path(__file__).resolve().parent / "images" / "viewer.png"
MAP, SEED, CONTRAST = 2, 6, 3
SIZE = 1500, 980
CONFIG = SynthesisConfig(voxel=1, contrasts=(1.0, 0.0, 0.0))


def main() -> None:
    """Write the picture."""
    os.environ["VOXPOOL_STATE"] = tempfile.mkdtemp()
    maps = sorted(Path(sys.argv[1]).glob("*.nii.gz"))
    sample = draw_image(draw_structures(read_head_map(maps[MAP]), CONFIG, SEED), CONFIG, CONTRAST)
    image = sample.image.numpy()
    volume = Volume(np.ascontiguousarray(image), Geometry(image.shape, np.eye(4)))
    app = get_qapp()

    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            app.processEvents()

    viewer = napari.Viewer(title="voxpool")
    viewer.window.resize(*SIZE)
    data, options, _ = layer_of_volume(volume, "synthetic head")
    viewer.add_image(data, **options)
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    wait(0.5)
    panel.run.start()
    while panel.run.job is not None:
        wait(0.1)
    while not panel.model.estimate.text().startswith("About"):
        wait(0.1)
    panel.view.show_planes()
    panel.correct.take(PICK)
    inside = np.argwhere(panel.layers.session.correction.labels > 0)
    panel.layers.go_to(tuple(int(place) for place in (inside.min(0) + inside.max(0)) // 2))
    wait(2)
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    Image.fromarray(picture).save(FIGURE, optimize=True)  # a palette would change the legend's colours
    viewer.close()


if __name__ == "__main__":
    main()
