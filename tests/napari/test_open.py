"""Opening volumes as a person does: menus, buttons, files that ask a question, files that cannot be used."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QDialog, QFileDialog, QInputDialog, QMessageBox

from napari_voxpool.settings import setting
from tests.io.dicom_files import SHAPE, write_series
from tests.napari.helpers import LEFT, WAIT
from voxpool.io import read_volume


@pytest.fixture
def panel(empty_panel):
    """Without a result, unlike that of the other files."""
    return empty_panel


def choose_file(monkeypatch, path):
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))


def opened(panel, viewer, qtbot):
    qtbot.waitUntil(lambda: not panel.status.text().startswith("Reading"), timeout=WAIT)
    return [layer.name for layer in viewer.layers]


def test_the_sample_is_in_the_file_menu(viewer, panel, qtbot):
    def find(menu, text):
        menu.aboutToShow.emit()  # napari fills its menus when they are opened
        for action in menu.actions():
            if action.text().replace("&", "") == text:
                return action
            found = find(action.menu(), text) if action.menu() is not None else None
            if found is not None:
                return found
        return None

    action = find(viewer.window.file_menu, "Brain phantom (voxpool)")
    assert action is not None, "File > Open Sample > Brain phantom (voxpool)"
    action.trigger()
    qtbot.waitUntil(lambda: len(viewer.layers) == 1)
    (layer,) = viewer.layers
    assert layer.ndim == 3
    assert panel.volume.image.value is layer
    assert panel.isVisible()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.mgz"])
def test_every_format_opens_at_its_place(viewer, panel, oblique_file, name, tmp_path, monkeypatch, qtbot):
    twin = read_volume(oblique_file)
    path = tmp_path / name
    if name.endswith("mgz"):
        nib.MGHImage(twin.array, twin.geometry.affine).to_filename(path)
    else:
        sitk.WriteImage(sitk.ReadImage(str(oblique_file)), str(path))
    choose_file(monkeypatch, path)
    qtbot.mouseClick(panel.volume.open_button, LEFT)
    assert opened(panel, viewer, qtbot) == ["a"], panel.status.text()
    (layer,) = viewer.layers
    np.testing.assert_array_equal(layer.data, twin.geometry.to_ras(twin.array).T)
    np.testing.assert_allclose(layer.scale, twin.geometry.ras().spacing[::-1], atol=1e-5)
    assert "stored PIL" in panel.volume.facts.text()


def test_one_of_several_volumes_is_asked_for(viewer, panel, tmp_path, monkeypatch, qtbot):
    array = np.random.default_rng(0).integers(0, 99, (5, 6, 7, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "series.nii.gz")
    choose_file(monkeypatch, tmp_path / "series.nii.gz")
    asked = []
    monkeypatch.setattr(QInputDialog, "getInt", lambda *args: asked.append(args[2]) or (2, True))
    qtbot.mouseClick(panel.volume.open_button, LEFT)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT)
    assert asked == ["series.nii.gz holds 3 volumes. Which one, from 0 to 2?"]
    np.testing.assert_array_equal(viewer.layers[0].data, array[..., 2].T)
    monkeypatch.setattr(QInputDialog, "getInt", lambda *args: (0, False))
    qtbot.mouseClick(panel.volume.open_button, LEFT)
    qtbot.waitUntil(lambda: panel.status.text() == "Nothing was opened.", timeout=WAIT)
    assert len(viewer.layers) == 1


def test_two_places_in_a_header_are_asked_for(viewer, panel, tmp_path, monkeypatch, qtbot):
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7), None)
    image.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    image.set_qform(np.diag([-2.0, -2, 2, 1]), 1)
    nib.save(image, tmp_path / "two.nii.gz")
    choose_file(monkeypatch, tmp_path / "two.nii.gz")
    answers = ["qform", "sform", None]

    def answer(box):
        assert "its sform and by its qform" in box.text()
        wanted = answers.pop(0)
        (button,) = [each for each in box.buttons() if each.text().replace("&", "") == (wanted or "Cancel")]
        button.click()

    monkeypatch.setattr(QMessageBox, "exec", answer)
    monkeypatch.setattr(
        QMessageBox, "clickedButton", lambda box: next((b for b in box.buttons() if b.property("pressed")), None)
    )
    monkeypatch.setattr(QMessageBox, "addButton", remembering(QMessageBox.addButton))
    for number, wanted in enumerate(["qform", "sform"], start=1):
        qtbot.mouseClick(panel.volume.open_button, LEFT)
        qtbot.waitUntil(lambda number=number: len(viewer.layers) == number, timeout=WAIT)
        assert f"took its {wanted}" in panel.volume.facts.text()
        np.testing.assert_array_equal(
            viewer.layers[-1].metadata["voxpool"].geometry.affine[:2, :2], np.eye(2) * (2 if wanted == "sform" else -2)
        )
    qtbot.mouseClick(panel.volume.open_button, LEFT)
    qtbot.waitUntil(lambda: "(E114)" in panel.status.text(), timeout=WAIT)
    assert len(viewer.layers) == 2


def remembering(add):
    """A box that was never shown does not know which of its buttons was pressed."""

    def added(box, *args):
        button = add(box, *args)
        button.clicked.connect(lambda: button.setProperty("pressed", True))
        return button

    return added


def test_what_cannot_be_used_is_one_sentence_with_details(viewer, panel, tmp_path, monkeypatch, qtbot):
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "text.nrrd").write_text("no image")
    (tmp_path / "empty.mgz").touch()
    (tmp_path / "letter.txt").write_text("no image")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), None), tmp_path / "nowhere.nii")
    whole = (tmp_path / "whole.nii.gz", nib.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4)))
    nib.save(whole[1], whole[0])
    (tmp_path / "cut.nii.gz").write_bytes(whole[0].read_bytes()[:700])
    write_series(tmp_path / "gap", np.ones(SHAPE), skip=(2,))
    write_series(tmp_path / "tilt", np.ones(SHAPE), shear=0.5)
    (tmp_path / "none").mkdir()
    details = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: details.append(box.detailedText()))
    for name, words in {
        "text.nii.gz": "is not gzip data",
        "text.nrrd": "cannot be read",
        "empty.mgz": "is empty",
        "letter.txt": "unknown kind of file",
        "gone.nii": "no such file",
        "nowhere.nii": "states no position",
        "cut.nii.gz": "ends early",
        "gap": "slices are missing",
        "tilt": "tilted gantry",
        "none": "holds no DICOM image",
    }.items():
        panel.volume.open(tmp_path / name)
        assert opened(panel, viewer, qtbot) == []
        sentence = panel.status.text()
        assert words in sentence
        assert sentence.endswith(".")
        assert "Traceback" not in sentence
        assert "\n" not in sentence
        qtbot.mouseClick(panel.status.details_button, LEFT)
        assert "Traceback" in details[-1]
    choose_file(monkeypatch, tmp_path / "whole.nii.gz")
    qtbot.mouseClick(panel.volume.open_button, LEFT)
    assert opened(panel, viewer, qtbot) == ["whole"], "it still works"
    assert not panel.status.details_button.isVisible()


def test_the_chooser_of_series_can_be_left(viewer, panel, tmp_path, monkeypatch, qtbot):
    for number in (1, 2):
        write_series(tmp_path / str(number), np.ones(SHAPE), uid=f"1.2.3.{number}", name=f"t{number}")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(QDialog, "exec", lambda _: QDialog.DialogCode.Rejected)
    qtbot.mouseClick(panel.volume.folder_button, LEFT)
    assert opened(panel, viewer, qtbot) == []
    assert panel.status.text() == "Nothing was opened."
    monkeypatch.setattr(QDialog, "exec", lambda _: QDialog.DialogCode.Accepted)
    qtbot.mouseClick(panel.volume.folder_button, LEFT)
    assert opened(panel, viewer, qtbot) == ["t1"]


def test_naparis_own_menu_says_the_sentence_without_a_traceback(viewer, tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    before = len(notification_manager.records)
    viewer.open(str(tmp_path / "text.nii.gz"), plugin="voxpool")
    assert not viewer.layers
    (record,) = notification_manager.records[before:]
    assert "text.nii.gz: is not gzip data" in record.message


def test_the_settings_page_is_there_and_counts(viewer):
    assert setting("inference", "device", "none") == "auto"
    assert setting("display", "convention", "none") == "radiological"
    assert setting("display", "border_opacity", 0) == 0.35
    assert setting("display", "nothing of that name", 7) == 7
