"""Exports, pressed in the panel and read back by other programs."""

import csv
import json

import highdicom
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from PIL import Image
from qtpy.QtWidgets import QFileDialog

from napari_voxpool.widgets.review import ML, NAME
from tests.io.dicom_files import turn, write_series
from tests.napari.helpers import CSF, GM, LEFT, WAIT, WM, choose, inside
from voxpool.data.phantom import phantom
from voxpool.io import read_volume


def test_export_lies_on_the_scan_and_the_report_agrees_with_the_table(
    panel, oblique_file, tmp_path, monkeypatch, qtbot
):
    correction = panel.layers.session.correction
    panel.layers.session.give([3], WM)
    panel.review.update_numbers()
    for name, button in (("out.nii.gz", "labels"), ("out.csv", "report"), ("out.json", "report")):
        path = tmp_path / name
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, path=path, **__: (str(path), ""))
        qtbot.mouseClick(getattr(panel.export, f"{button}_button"), LEFT)
        assert panel.status.text().startswith(f"Saved {path}")
    source, found = nib.load(oblique_file), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(found.affine, source.affine)
    assert found.header["sform_code"] == source.header["sform_code"]
    assert found.header["qform_code"] == source.header["qform_code"]
    volume = read_volume(oblique_file)
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume.geometry.from_ras(correction.labels.T))
    assert json.loads((tmp_path / "out.labels.json").read_text(encoding="utf-8")) == {
        "0": "BG",
        "1": "CSF",
        "2": "GM",
        "3": "WM",
    }
    facts = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert facts["edits"] == 1
    assert facts["note"] == "research use only, not a medical device"
    assert str(tmp_path) not in json.dumps(facts)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    for number, (row, tissue) in enumerate(zip(rows, facts["tissues"], strict=True)):
        item = panel.review.table.topLevelItem(number)
        assert row["name"] == tissue["name"] == item.text(NAME)
        assert f"{float(row['volume_ml']):.2f}" == f"{tissue['volume_ml']:.2f}" == item.text(ML)


def test_a_folder_that_cannot_be_written_is_a_sentence(panel, tmp_path, monkeypatch, qtbot):
    (tmp_path / "nowhere").write_text("no folder")
    path = tmp_path / "nowhere" / "out.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    qtbot.mouseClick(panel.export.labels_button, LEFT)
    assert "nowhere" in panel.status.text()
    assert "Saved" not in panel.status.text()


def test_the_picture_shows_the_planes_and_the_tissues(panel, viewer, tmp_path, monkeypatch, qtbot):
    index, number = inside(panel)
    panel.layers.session.correction.labels[:] = 0
    panel.layers.session.take_over()
    panel.layers.session.give(range(len(panel.layers.session.correction.regions)), CSF)
    panel.layers.session.give([number], WM)
    viewer.dims.point = panel.layers.tissues.data_to_world(index)
    path = tmp_path / "planes.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    qtbot.mouseClick(panel.export.picture_button, LEFT)
    assert panel.status.text().startswith("Saved ")
    pixels = np.asarray(Image.open(path)).astype(int)
    spread = np.ptp(pixels, axis=-1)
    yellow = (pixels[..., 0] > pixels[..., 2] + 40) & (pixels[..., 1] > pixels[..., 2] + 40)
    blue = (pixels[..., 2] > pixels[..., 0] + 30) & (spread > 30)
    top = slice(0, 14 + 360 + 14)
    assert blue[top].sum() > 1000
    columns = np.flatnonzero(yellow[top].any(axis=0))
    assert len(columns) > 10, "the supervoxel is in all three planes"
    gaps = np.flatnonzero(np.diff(columns) > 50)
    assert len(gaps) == 2


def test_labels_lie_where_simpleitk_sees_the_scan(panel, oblique_file, tmp_path, monkeypatch, qtbot):
    """The same file whichever side is on the left of the screen."""
    for name in ("radiological", "neurological"):
        path = tmp_path / f"{name}.nii.gz"
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, path=path, **__: (str(path), ""))
        qtbot.mouseClick(panel.export.labels_button, LEFT)
        qtbot.mouseClick(panel.view.convention_button, LEFT)
    assert (tmp_path / "radiological.nii.gz").read_bytes() == (tmp_path / "neurological.nii.gz").read_bytes()
    scan, labels = sitk.ReadImage(str(oblique_file)), sitk.ReadImage(str(tmp_path / "radiological.nii.gz"))
    for of_grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, of_grid)(), getattr(scan, of_grid)(), atol=1e-5)
    assert labels.GetPixelID() == sitk.sitkUInt8


def test_a_dicom_scan_gives_a_dicom_segmentation(make_napari_viewer, supervoxel_package, tmp_path, monkeypatch, qtbot):
    """Opened, segmented, corrected, exported; highdicom reads the same labels at the same places."""
    image, _ = phantom((40, 44, 30))
    write_series(tmp_path / "scan", image, rotation=turn(12))
    viewer = make_napari_viewer(show=True)
    _, panel = viewer.window.add_plugin_dock_widget("voxpool", "Segment and correct")
    qtbot.waitUntil(panel.isVisible)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path / "scan"))
    qtbot.mouseClick(panel.volume.folder_button, LEFT)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT)
    assert "oblique by 17°" in panel.volume.facts.text()
    choose(panel, supervoxel_package)
    qtbot.mouseClick(panel.run.run_button, LEFT)
    qtbot.waitUntil(lambda: panel.run.job is None, timeout=WAIT)
    session = panel.layers.session
    for label, number in ((CSF, 1), (GM, 2), (WM, 3)):
        session.give([number], label)
    path = tmp_path / "seg.dcm"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    assert panel.export.dicom_button.isEnabled()
    qtbot.mouseClick(panel.export.dicom_button, LEFT)
    assert panel.status.text().startswith(f"Saved {path}"), panel.status.text()

    found = highdicom.seg.segread(path)
    names = [segment.SegmentLabel for segment in found.SegmentSequence]
    assert set(names) == {session.about.label_names[label] for label in np.unique(session.correction.labels) if label}
    volume = session.shown.volume
    back = found.get_volume(combine_segments=True)
    places = np.argwhere(back.array > 0)
    world = places @ back.affine[:3, :3].T + back.affine[:3, 3]
    index = np.linalg.inv(volume.geometry.affine) @ np.c_[world * [-1, -1, 1], np.ones(len(world))].T
    np.testing.assert_allclose(index[:3], np.rint(index[:3]), atol=1e-3)
    stored = session.shown.store(session.correction.labels)
    labels = {name: label for label, name in session.about.label_names.items()}
    values = np.array([0, *(labels[name] for name in names)])
    np.testing.assert_array_equal(stored[tuple(np.rint(index[:3]).astype(int))], values[back.array[tuple(places.T)]])
    assert len(places) == (stored > 0).sum()
