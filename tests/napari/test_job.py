import shutil

import numpy as np
import pytest
from napari.layers import Image

from napari_voxpool.display import layer_of_volume
from napari_voxpool.job import Job, new_job
from napari_voxpool.tissues import label_colours
from voxpool.data.head_labels import CLASSES
from voxpool.errors import UsageError
from voxpool.inference import Segmenter
from voxpool.io import read_volume


@pytest.fixture
def layer(oblique_file):
    data, options, _ = layer_of_volume(read_volume(oblique_file), "head")
    return Image(data, **options)


@pytest.mark.parametrize("model", ["package", "supervoxel_package"])
def test_job_gives_what_the_segmenter_gives_for_the_file(layer, model, oblique_file, request):
    package = request.getfixturevalue(model)
    volume = read_volume(oblique_file)
    expected = Segmenter.load(package, device="cpu").segment(volume)
    assert len(np.unique(expected.labels)) > 1, "a test on empty labels would show nothing"
    job = Job(layer, package, device="cpu")
    outcome = job.run()
    session = outcome.session
    assert outcome.message.startswith("Done in ")
    assert (job.stage, job.fraction) == ("done", 1.0)
    np.testing.assert_array_equal(session.correction.labels, volume.geometry.to_ras(expected.labels).T)
    np.testing.assert_array_equal(session.shown.store(session.correction.labels), expected.labels)
    assert {row.name: row.ml for row in session.correction.rows()} == pytest.approx(expected.volumes_ml)
    assert session.about.quality == expected.quality
    assert (session.correction.regions is None) == (expected.segments is None)


def test_cancelled_job_has_no_result(layer, package):
    job = Job(layer, package)
    job.cancel()
    outcome = job.run()
    assert outcome.session is None
    assert outcome.message == "Cancelled; nothing was changed."


def test_damaged_package_is_a_sentence(layer, package, tmp_path):
    broken = shutil.copytree(package, tmp_path / "broken")
    with (broken / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    outcome = Job(layer, broken).run()
    assert outcome.session is None
    assert "broken/model.safetensors does not match its checksum" in outcome.message


def test_layer_that_cannot_be_segmented_is_a_sentence(package):
    outcome = Job(Image(np.zeros((3, 8, 8, 8)), name="series"), package).run()
    assert outcome.session is None
    assert outcome.message.startswith("layer series is 4-dimensional")


def test_fields_are_checked_before_a_thread_starts(layer, package):
    job = new_job(layer, str(package), "cpu", "all-csf")
    assert (job.layer, job.package, job.device, job.convention) == (layer, str(package), "cpu", "all-csf")
    with pytest.raises(UsageError, match="open a volume first"):
        new_job(None, str(package), "cpu")


def test_colours_follow_the_tissue_and_never_repeat_for_a_few_classes():
    colours = label_colours({0: "BG", 1: "lesion", 2: "WM", 3: "GM", 4: "CSF", 5: "stem"})
    assert colours[0] == "transparent"
    assert len(set(colours.values())) == 6
    assert len(set(label_colours(dict(enumerate(CLASSES))).values())) == len(CLASSES)
    assert colours[2] == label_colours({0: "BG", 1: "WM"})[1]
