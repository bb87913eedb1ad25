import gc
import os

import numpy as np
import pytest
import torch
from superqt.utils import WorkerBase

from tests.napari.helpers import LEFT, WAIT, choose
from voxpool.data.phantom import phantom
from voxpool.data.transforms import PreprocessConfig, SupervoxelConfig
from voxpool.io import Geometry, Volume, write_volume
from voxpool.model_package import ModelInfo, save_package

# An empty name keeps napari from reading and writing the settings of whoever runs the tests.
os.environ["NAPARI_CONFIG"] = ""

LABEL_NAMES = {0: "BG", 1: "CSF", 2: "GM", 3: "WM"}


def make_package(folder, *, reduction=8, head="base"):
    """A package of random weights: what the labels are does not matter here, where they lie does."""
    info = ModelInfo(
        net="voxresnet",
        net_options={"reduction": reduction},
        head=head,
        channels=("T1",),
        label_names=LABEL_NAMES,
        convention="phantom",
        preprocess=PreprocessConfig(),
        supervoxels=None if head == "base" else SupervoxelConfig("slic", 200),
    )
    torch.manual_seed(0)
    return save_package(info.create(), info, folder)


@pytest.fixture(scope="session", autouse=True)
def only_new_objects_are_collected():
    """napari collects garbage whenever layers change, and would look through torch's and its own modules every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def supervoxel_package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("models") / "v3", head="v3")


@pytest.fixture(scope="session")
def large_package(tmp_path_factory):
    """The full network: it computes for seconds, so a run can be stopped on the way."""
    return make_package(tmp_path_factory.mktemp("models") / "full", reduction=1)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Keeps corrections and models out of the folders of whoever runs the tests."""
    monkeypatch.setenv("VOXPOOL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("VOXPOOL_MODELS", str(tmp_path / "models"))


@pytest.fixture(autouse=True)
def threads_end():
    """A thread that outlives the last test would report to an application that is gone."""
    yield
    WorkerBase.await_workers()


@pytest.fixture
def oblique_file(tmp_path):
    """A phantom stored in the order P, I, L, the head tilted by 10 degrees, bright in front on the right."""
    image, _ = phantom((40, 48, 36))
    image[26:32, 34:42, 14:22] = 2000
    angle = np.deg2rad(10)
    ras = np.eye(4)
    ras[:3, :3] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    ras[:3, :3] *= [2.0, 2.0, 2.5]
    ras[:3, 3] = (-40, -55, -30)
    # posterior is axis 1 of (R, A, S) flipped, inferior axis 2, left axis 0
    array = image[::-1, ::-1, ::-1].transpose(1, 2, 0)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, source in enumerate((1, 2, 0)):
        turn[source, axis] = -1
        turn[source, 3] = image.shape[source] - 1
    geometry = Geometry(array.shape, ras @ turn)
    assert geometry.orientation == "PIL"
    path = tmp_path / "head.nii.gz"
    write_volume(path, np.ascontiguousarray(array), Volume(array, geometry))
    return path


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def empty_panel(viewer, qtbot):
    """The panel as it opens."""
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    return panel


@pytest.fixture
def panel(viewer, oblique_file, supervoxel_package, qtbot):
    """The panel with a result of the file."""
    viewer.window._qt_window.resize(1500, 950)
    viewer.open(str(oblique_file), plugin="voxpool")
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    panel.model.device.value = "cpu"
    choose(panel, supervoxel_package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    assert panel.layers is not None, panel.status.text()
    viewer.dims.set_current_step(0, 18)
    viewer.reset_view()
    qtbot.wait(200)
    return panel
