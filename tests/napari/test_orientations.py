"""The same head, whichever way its file stores it: the same picture, the same letters."""

import itertools

import numpy as np
import pytest

from voxpool.data.phantom import phantom
from voxpool.io import Geometry, Volume, write_volume

SHAPE, SPACING = (40, 48, 36), (2.0, 2.0, 2.5)
ORDERS = list(itertools.permutations(range(3)))
SIGNS = list(itertools.product((1, -1), repeat=3))


def stored(image, order, signs, tilt=0.0):
    """A head as a file that stores it in another order; (x, y, z) to the right, to the front, up."""
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    turn[:3, :3] *= SPACING
    turn[:3, 3] = turn[:3, :3] @ (-(np.array(SHAPE) - 1) / 2)
    array = image.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        back[source, axis] = sign
        back[source, 3] = 0 if sign > 0 else SHAPE[source] - 1
    return Volume(np.ascontiguousarray(array), Geometry(array.shape, turn @ back))


@pytest.fixture
def head():
    """Nothing alike on any two sides."""
    image, _ = phantom(SHAPE)
    image[28:33, 36:42, 17:21] = 2500
    image[8:12, 10:14, 16:22] = 1800
    return image


def test_all_orientations_give_one_picture(make_napari_viewer, head, tmp_path, qtbot):
    """48 orientations straight, and three tilted: what the screen shows does not depend on the file."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1200, 640)
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)

    def picture(volume):
        viewer.layers.clear()
        write_volume(tmp_path / "head.nii.gz", volume.array, volume)
        viewer.open(str(tmp_path / "head.nii.gz"), plugin="voxpool")
        assert f"stored {volume.geometry.orientation}" in panel.volume.facts.text()
        viewer.dims.set_current_step(0, 18)
        viewer.reset_view()
        qtbot.wait(40)
        texts = {edge: label.text() for edge, label in panel.view.letters.labels.items()}
        assert texts == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
        return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)

    straight = picture(stored(head, (0, 1, 2), (1, 1, 1)))
    assert straight.std() > 20, "an empty picture would show nothing"
    seen = set()
    for order, signs in itertools.product(ORDERS, SIGNS):
        volume = stored(head, order, signs)
        seen.add(volume.geometry.orientation)
        difference = np.abs(picture(volume) - straight)
        assert difference.max() <= 2, f"{volume.geometry.orientation} differs at {np.argwhere(difference > 2)[0]}"
    assert len(seen) == 48
    tilted = [stored(head, order, signs, tilt=0.2) for order, signs in zip(ORDERS[:3], SIGNS[2:5], strict=True)]
    first = picture(tilted[0])
    assert "oblique by 11°" in panel.volume.facts.text()
    for volume in tilted[1:]:
        assert np.abs(picture(volume) - first).max() <= 2
