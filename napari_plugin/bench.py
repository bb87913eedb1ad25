"""`python -m napari_voxpool.bench`: how fast the window answers on a volume of a clinic's size; needs a display.

It opens a phantom of 256 x 256 x 180 voxels with 12 000 supervoxels, edits it as the mouse would, and segments it
while a timer of the window keeps ticking: the longest pause between two ticks is how long the window stood still.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import napari
import numpy as np
import psutil
from napari.qt import get_qapp
from superqt.utils import WorkerBase

from napari_voxpool.display import Shown, layer_of_volume, shown_by
from napari_voxpool.journal import About, fingerprint
from napari_voxpool.session import SegmentationSession
from napari_voxpool.widgets.panel import Panel
from voxpool.data.phantom import phantom
from voxpool.io import Geometry, Volume
from voxpool.supervoxels import slic

SHAPE, SUPERVOXELS = (256, 256, 180), 12_000
NAMES = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
ROUNDS = 20
RUNS = 3
_STROKE = 40
_PAUSE = 0.005  # seconds for the threads' work between two turns of the window's loop


def main() -> None:
    """Measure, and print a table."""
    image, labels = phantom(SHAPE)
    volume = Volume(image, Geometry(SHAPE, np.eye(4)))
    app = get_qapp()
    viewer = napari.Viewer(title="voxpool bench")
    viewer.window.resize(1500, 950)
    data, options, _ = layer_of_volume(volume, "phantom")
    layer = viewer.add_image(data, **options)
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    app.processEvents()
    before = psutil.Process().memory_info().rss

    shown = shown_by(layer)
    session = _session(shown, labels)
    panel.show_session(layer, session)
    _wait(app.processEvents, panel.correct.size.isEnabled)
    regions = session.correction.regions
    assert regions is not None  # made above
    numbers = np.random.default_rng(0).integers(0, len(regions), ROUNDS)

    def redraw(act: Callable[[], object]) -> float:
        start = time.perf_counter()
        act()
        viewer.window._qt_window.repaint()
        app.processEvents()
        return time.perf_counter() - start

    def give(number: int, count: int, label: int) -> None:
        panel.correct._edited(session.give(range(number, number + count), label))

    few = [int(number) for number in numbers % (len(regions) - _STROKE)]
    rows = {
        "click on a supervoxel": [redraw(partial(give, n, 1, 1)) for n in few],
        "stroke over 40": [redraw(partial(give, n, _STROKE, 2)) for n in few],
        "undo": [redraw(panel.correct.undo) for _ in few],
        "next doubtful": [redraw(panel.review.next_doubtful) for _ in few],
        "another slice": [redraw(partial(viewer.dims.set_current_step, 0, n % SHAPE[2])) for n in few],
    }
    print(f"{SHAPE} voxels, {len(regions)} supervoxels, {session.correction.edits} edits left")
    for name, seconds in rows.items():
        print(f"{name:24s} median {1000 * statistics.median(seconds):4.0f} ms, longest {1000 * max(seconds):4.0f} ms")
    grown = psutil.Process().memory_info().rss - before
    print(f"memory of the session {grown / 2**20:.0f} MiB, of the volume {data.nbytes / 2**20:.0f} MiB")
    _wait(app.processEvents, lambda: panel.model.estimate.text().startswith("About"))
    pauses = [_longest_pause(app.processEvents, panel) for _ in range(RUNS)]
    for pause, stage in pauses:
        print(f"window stood still for {1000 * pause:.0f} ms at most while segmenting, at stage {stage}")
    WorkerBase.await_workers()
    viewer.close()


def _session(shown: Shown, labels: np.ndarray) -> SegmentationSession:
    segments = np.asarray(slic(shown.volume.array, SUPERVOXELS, mask=shown.volume.array > 0))
    about = About(fingerprint(shown.volume), "phantom", "", NAMES, 1.0, (), time.time())
    arrays = {
        "labels": np.ascontiguousarray(shown.show(labels.astype(np.uint8))),
        "segments": np.ascontiguousarray(shown.show(segments)),
        "uncertainty": np.random.default_rng(1).random(int(segments.max()) + 1),
    }
    return SegmentationSession.begin_with(shown, about, arrays)


def _wait(process: Callable[[], None], until: Callable[[], bool]) -> None:
    while not until():
        process()
        time.sleep(_PAUSE)


def _longest_pause(process: Callable[[], None], panel: Panel) -> tuple[float, str]:
    """Segment with the bundled model; the longest gap between two turns of the window's loop, and where it was."""
    panel.run.may_replace = lambda _: True
    panel.run.start()
    longest, where, last = 0.0, "", time.perf_counter()
    while panel.run.job is not None:
        stage = panel.run.job.stage
        process()
        now = time.perf_counter()
        if now - last > longest:
            longest, where = now - last, stage
        last = now
        time.sleep(_PAUSE)
    return longest, where


if __name__ == "__main__":
    main()
