"""What is written lies where its source lay: checked through nibabel, which knows nothing of voxpool."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from voxpool.errors import UsageError
from voxpool.io import Geometry, Volume, read_labels, read_volume, write_volume

AXIS_MAPS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
SHAPE = (4, 5, 6)


def oblique_affine(order, signs, degrees):
    axes = np.zeros((3, 3))
    for axis, (direction, sign) in enumerate(zip(order, signs, strict=True)):
        axes[direction, axis] = sign * (0.8, 1.25, 2.5)[axis]
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes
    affine[:3, 3] = (-31.7, 12.3, 55.1)
    return affine


def save(path, array, affine, *, sform=1, qform=1, units=("mm", "sec"), kind=nibabel.Nifti1Image):
    image = kind(array, None)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.header.set_xyzt_units(*units)
    for field in {"descrip", "aux_file", "db_name", "intent_name"} & set(image.header.keys()):
        image.header[field] = b"Jane Doe"
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize(("order", "signs"), AXIS_MAPS)
def test_the_way_there_and_back_keeps_grid_header_and_place(tmp_path, order, signs, degrees):
    source = save(
        tmp_path / "in.nii",
        np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16),
        oblique_affine(order, signs, degrees),
        sform=2,
        qform=1,
        units=("mm", "msec"),
    )
    volume = read_volume(source)
    ras = volume.geometry.to_ras(volume.array)
    marked = np.zeros(ras.shape, np.uint8)
    marked[1, 2, 3] = 3
    write_volume(tmp_path / "out.nii.gz", volume.geometry.from_ras(marked), volume)

    before, after = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
    assert after.shape == before.shape
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.get_qform(), before.get_qform())
    for field in ("sform_code", "qform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "srow_x"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    np.testing.assert_array_equal(after.header["pixdim"][:4], before.header["pixdim"][:4])
    assert (after.dataobj.slope, after.dataobj.inter) == (1.0, 0.0)
    data = np.asarray(after.dataobj)
    place = after.affine @ [*np.argwhere(data)[0], 1]
    np.testing.assert_allclose(place, volume.geometry.ras().affine @ [1, 2, 3, 1], atol=1e-4)
    assert data.sum() == 3


@pytest.mark.parametrize(("sform", "qform"), [(0, 1), (4, 0), (3, 3)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_both_forms_and_versions_are_restored_bit_for_bit(tmp_path, sform, qform, kind):
    affine = oblique_affine((1, 0, 2), (-1, 1, 1), 33.3)
    source = save(tmp_path / "in.nii.gz", np.ones(SHAPE, np.float32), affine, sform=sform, qform=qform, kind=kind)
    write_volume(tmp_path / "out.nii.gz", np.zeros(SHAPE, bool), read_volume(source))
    before, after = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
    assert type(after) is kind
    fields = ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qform_code")
    for field in (*fields, "qoffset_y", "qoffset_z", "sform_code", "xyzt_units"):
        assert after.header[field].tobytes() == before.header[field].tobytes(), field
    np.testing.assert_array_equal(after.affine, before.affine)


def test_no_text_of_the_source_is_copied(tmp_path):
    source = save(tmp_path / "in.nii", np.ones(SHAPE, np.uint8), np.eye(4))
    write_volume(tmp_path / "out.nii", np.ones(SHAPE, np.uint8), read_volume(source))
    assert source.read_bytes().count(b"Jane Doe") == 4
    assert b"Jane" not in (tmp_path / "out.nii").read_bytes()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 255], np.uint8),
        ([-1, 3], np.int16),
        ([0, 256], np.int16),
        ([0, 40000], np.int32),
        ([False, True], np.uint8),
        ([0.5, 1e30], np.float32),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_smallest_type_that_holds_the_values_is_written(tmp_path, values, wanted, order):
    array = np.zeros(SHAPE, np.asarray(values).dtype, order=order)
    array[0, 0, 0], array[3, 4, 5] = values
    array[1, 2, 3] = values[1]
    write_volume(tmp_path / "out.nii.gz", array, Volume(np.zeros(SHAPE), Geometry(SHAPE, np.eye(4))))
    image = nibabel.load(tmp_path / "out.nii.gz")
    assert image.get_data_dtype() == wanted
    np.testing.assert_array_equal(np.asarray(image.dataobj), array.astype(wanted))


def test_a_volume_from_memory_gets_both_forms(tmp_path):
    affine = oblique_affine((2, 1, 0), (1, -1, 1), 8.0)
    write_volume(tmp_path / "x.nii.gz", np.ones(SHAPE, np.uint8), Volume(np.zeros(SHAPE), Geometry(SHAPE, affine)))
    image = nibabel.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert read_volume(tmp_path / "x.nii.gz").geometry.matches(Geometry(SHAPE, affine), tolerance_mm=1e-4)


def test_a_sheared_volume_from_memory_states_its_sform_only(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.2
    write_volume(tmp_path / "x.nii.gz", np.ones(SHAPE, np.uint8), Volume(np.zeros(SHAPE), Geometry(SHAPE, affine)))
    volume = read_volume(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-6)
    assert any("W202" in notice for notice in volume.notices)


def test_a_reoriented_volume_is_not_written_under_its_old_header(tmp_path):
    source = save(tmp_path / "in.nii", np.ones(SHAPE, np.uint8), oblique_affine((1, 0, 2), (-1, 1, 1), 0.0))
    volume = read_volume(source)
    moved = Volume(volume.geometry.to_ras(volume.array), volume.geometry.ras(), volume.header)
    write_volume(tmp_path / "out.nii", moved.array, moved)
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii").affine, moved.geometry.affine, atol=1e-5)


def test_two_writes_give_the_same_bytes(tmp_path):
    like = Volume(np.zeros(SHAPE), Geometry(SHAPE, np.eye(4)))
    array = np.random.default_rng(2).integers(0, 4, SHAPE)
    write_volume(tmp_path / "a.nii.gz", array, like)
    write_volume(tmp_path / "other name.nii.gz", array.astype(np.int8), like)
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "other name.nii.gz").read_bytes()
    assert first[3:8] == bytes(5)  # gzip: no name, no time


def test_labels_survive_the_way_through_disk(tmp_path):
    labels = np.random.default_rng(3).integers(0, 300, SHAPE)
    write_volume(tmp_path / "x.nii.gz", labels, Volume(np.zeros(SHAPE), Geometry(SHAPE, np.eye(4))))
    again = read_labels(tmp_path / "x.nii.gz")
    assert again.array.dtype == np.int32
    np.testing.assert_array_equal(again.array, labels)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("x.png", np.zeros(SHAPE, np.uint8), "unknown kind of file"),
        ("x.nii", np.zeros((4, 5, 7), np.uint8), r"shape \(4, 5, 7\), its grid has \(4, 5, 6\)"),
        ("x.nii", np.zeros(SHAPE, np.complex64), "cannot store complex64"),
        ("x.nii", np.full(SHAPE, 2**40), "do not fit 32 bits"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, array, reason):
    with pytest.raises(UsageError, match=reason):
        write_volume(tmp_path / name, array, Volume(np.zeros(SHAPE), Geometry(SHAPE, np.eye(4))))
    assert not list(tmp_path.iterdir())
