"""DICOM folders against SimpleITK's own reading, and what is refused."""

import locale
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.io.dicom_files import SHAPE, SPACING, turn, write_series
from voxpool.errors import InputError, UsageError
from voxpool.io import Volume, list_series, read_dicom, write_segmentation


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, SHAPE)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("degrees", [0, 12, 100])
def test_a_series_lies_where_simpleitk_says(tmp_path: Path, array: np.ndarray, degrees: float, order: int) -> None:
    write_series(tmp_path, array, rotation=turn(degrees), order=order)
    (tmp_path / "readme.txt").write_text("no image")
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.spacing, SPACING, atol=1e-5)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)
    for index in ((0, 0, 0), (8, 3, 5), (2, 9, 1)):
        theirs = np.diag([-1, -1, 1]) @ image.TransformIndexToPhysicalPoint(index)
        value = sitk.GetArrayFromImage(image)[index[::-1]]
        ours = np.linalg.inv(volume.geometry.affine) @ [*theirs, 1]
        assert volume.array[tuple(np.rint(ours[:3]).astype(int))] == value
        np.testing.assert_allclose(ours[:3], np.rint(ours[:3]), atol=1e-3)


def test_rescaling_is_applied(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path, array, rescale=(1, -1024))
    stored = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(read_dicom(tmp_path).array, sitk.GetArrayFromImage(stored).T)


def test_several_series_are_listed_the_volumes_first(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path / "a", array, uid="1.2.3.1", name="t1")
    write_series(tmp_path / "b", array[:, :, :4] + 1, uid="1.2.3.2", name="flair")
    write_series(tmp_path / "c", array[:, :, :1], uid="1.2.3.3", name="scout")
    found = list_series(tmp_path)
    assert [one.description for one in found] == ["t1", "flair", "scout"]
    assert [one.problem is None for one in found] == [True, True, False]
    assert [len(one.files) for one in found] == [6, 4, 1]
    with pytest.raises(InputError, match=r"holds 2 volumes: t1 .*flair"):
        read_dicom(tmp_path)
    np.testing.assert_array_equal(read_dicom(tmp_path, uid="1.2.3.2").array, array[:, :, :4] + 1)
    with pytest.raises(InputError, match=r"holds no series 9\.9"):
        read_dicom(tmp_path, uid="9.9")
    with pytest.raises(InputError, match="localiser"):
        read_dicom(tmp_path, uid="1.2.3.3")


def test_what_is_no_volume_is_refused_by_name(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path / "gap", array, skip=(3,))
    with pytest.raises(InputError, match=r"gap of 5 mm after slice 3 where 2\.5 mm .*E131"):
        read_dicom(tmp_path / "gap")
    write_series(tmp_path / "tilt", array, shear=0.5)
    with pytest.raises(InputError, match=r"shifted by 2\.5 mm .*tilted gantry.*E132"):
        read_dicom(tmp_path / "tilt")
    write_series(tmp_path / "mixed", array)
    write_series(tmp_path / "mixed" / "more", array[:, :, :2], rotation=turn(90))
    with pytest.raises(InputError, match=r"point in different directions.*E133"):
        read_dicom(tmp_path / "mixed")
    write_series(tmp_path / "sizes", array)
    write_series(tmp_path / "sizes" / "more", array[:5, :, :2])
    with pytest.raises(InputError, match=r"differ in size, 5 x 10 and 9 x 10.*E133"):
        read_dicom(tmp_path / "sizes")
    write_series(tmp_path / "twice", array)
    write_series(tmp_path / "twice" / "more", array)
    with pytest.raises(InputError, match=r"at one place.*E133"):
        read_dicom(tmp_path / "twice")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no DICOM image.*E130"):
        read_dicom(tmp_path / "none")


def test_a_cut_off_file_is_a_sentence(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path, array)
    file = sorted(tmp_path.iterdir())[2]
    file.write_bytes(file.read_bytes()[:-120])
    with pytest.raises(InputError, match=file.name):
        read_dicom(tmp_path)


def test_dicom_and_nifti_of_one_scan_agree(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path / "dicom", array, rotation=turn(20))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "dicom")))
    sitk.WriteImage(image, str(tmp_path / "twin.nii.gz"))
    twin = nibabel.load(tmp_path / "twin.nii.gz")
    volume = read_dicom(tmp_path / "dicom")
    corners = np.array([[0, 0, 0, 1], [8, 9, 5, 1]])
    np.testing.assert_allclose(corners @ volume.geometry.affine.T, corners @ twin.affine.T, atol=1e-3)
    np.testing.assert_array_equal(volume.array, np.asarray(twin.dataobj))


NAMES = {0: "background", 1: "CSF", 2: "cortical GM", 3: "WM", 4: "lesion"}


@pytest.mark.parametrize("degrees", [0, 15])
def test_a_dicom_segmentation_lies_on_its_series(tmp_path: Path, array: np.ndarray, degrees: float) -> None:
    write_series(tmp_path / "scan", array, rotation=turn(degrees))
    volume = read_dicom(tmp_path / "scan")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 1:3], labels[4:7, 2:9, 2:5], labels[2:3, 7:9, 3:4] = 1, 3, 4
    write_segmentation(tmp_path / "seg.dcm", labels, volume, label_names=NAMES, algorithm="test")
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [one.SegmentLabel for one in found.SegmentSequence] == ["CSF", "WM", "lesion"]
    assert found.PatientName == pydicom.dcmread(volume.sources[0]).PatientName
    assert found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "test"
    back = found.get_volume(combine_segments=True)
    values = {1: 1, 2: 3, 3: 4}
    places = np.argwhere(back.array > 0)
    world = places @ back.affine[:3, :3].T + back.affine[:3, 3]
    ours = np.linalg.inv(volume.geometry.affine) @ np.c_[world * [-1, -1, 1], np.ones(len(world))].T
    index = np.rint(ours[:3]).astype(int)
    np.testing.assert_allclose(ours[:3], index, atol=1e-3)
    np.testing.assert_array_equal(labels[tuple(index)], [values[int(v)] for v in back.array[tuple(places.T)]])
    assert len(places) == (labels > 0).sum()


def test_a_dicom_segmentation_needs_a_series_and_a_label(tmp_path: Path, array: np.ndarray) -> None:
    write_series(tmp_path / "scan", array)
    volume = read_dicom(tmp_path / "scan")
    options = {"label_names": NAMES, "algorithm": "test"}
    labels = np.ones(SHAPE, np.uint8)
    with pytest.raises(UsageError, match="no DICOM"):
        write_segmentation(tmp_path / "a.dcm", labels, Volume(volume.array, volume.geometry), **options)
    with pytest.raises(UsageError, match="all background"):
        write_segmentation(tmp_path / "a.dcm", labels * 0, volume, **options)
    with pytest.raises(UsageError, match="the series has"):
        write_segmentation(tmp_path / "a.dcm", labels[1:], volume, **options)
    without = pydicom.dcmread(volume.sources[2])
    del without.FrameOfReferenceUID
    for source in volume.sources:
        without.save_as(source)
    with pytest.raises(InputError, match="lacks what a DICOM SEG refers to"):
        write_segmentation(tmp_path / "a.dcm", labels, volume, **options)
    volume.sources[2].unlink()
    with pytest.raises(InputError, match="is gone"):
        write_segmentation(tmp_path / "a.dcm", labels, volume, **options)
    assert not (tmp_path / "a.dcm").exists()


def test_reading_leaves_the_locale_alone(tmp_path: Path) -> None:
    write_series(tmp_path, np.arange(np.prod(SHAPE)).reshape(SHAPE))
    before = locale.setlocale(locale.LC_ALL)
    read_dicom(tmp_path)
    assert locale.setlocale(locale.LC_ALL) == before
