"""What is read equals what nibabel reads; what cannot be used is refused in one sentence."""

import gzip
import os
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxpool.errors import InputError, UsageError
from voxpool.io import read_geometry, read_labels, read_volume, write_volume

SHAPE = (4, 5, 6)
LAS = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
# Byte offsets of NIfTI-1 header fields.
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, UNITS, QFORM, SFORM, QUATERN, SROW = (
    40, 70, 76, 108, 112, 123, 252, 254, 256, 280,
)  # fmt: skip


def save(path, array=None, affine=LAS, *, sform=1, qform=1, dtype=None):
    array = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16) if array is None else array
    image = nibabel.Nifti1Image(array, None, dtype=dtype)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return Path(path)


def patch(path, offset, form, *values):
    """Overwrites a header field of a plain .nii file."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{Path(path).name}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "X.NII.GZ", "mit Lücke ünd ß.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", ">i2", "u2", "i4", "f4", ">f4", "f8", "i8"])
def test_values_and_place_are_those_of_nibabel(tmp_path, name, dtype):
    array = np.random.default_rng(1).integers(0, 100, SHAPE).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    image = nibabel.Nifti1Image(array, LAS, header, dtype=np.dtype(dtype))
    nibabel.save(image, tmp_path / name)
    volume, other = read_volume(tmp_path / name), nibabel.load(tmp_path / name)
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    np.testing.assert_array_equal(volume.array, other.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.geometry.affine, other.affine)
    assert volume.geometry == read_geometry(tmp_path / name)
    assert volume.path == tmp_path / name
    assert volume.notices == ()


def test_scaling_is_applied(tmp_path):
    path = save(tmp_path / "x.nii", np.arange(120, dtype=np.int16).reshape(SHAPE))
    patch(path, SLOPE, "2f", 0.5, -3.0)
    np.testing.assert_array_equal(read_volume(path).array.ravel(), np.arange(120) * 0.5 - 3)
    patch(path, SLOPE, "2f", 0.0, 7.0)  # NIfTI: a slope of 0 means that there is no scaling
    np.testing.assert_array_equal(read_volume(path).array.ravel(), np.arange(120))


@pytest.mark.parametrize("tail", [(1,), (1, 1), (1, 1, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped(tmp_path, tail):
    array = np.random.default_rng(0).integers(0, 200, (*SHAPE, *tail)).astype(np.int16)
    volume = read_volume(save(tmp_path / "x.nii.gz", array))
    np.testing.assert_array_equal(volume.array, array.reshape(SHAPE))
    write_volume(tmp_path / "y.nii.gz", volume.array, volume)
    assert nibabel.load(tmp_path / "y.nii.gz").shape == SHAPE


def test_a_volume_of_one_slice_is_a_volume(tmp_path):
    assert read_volume(save(tmp_path / "x.nii", np.ones((7, 8, 1), np.uint8))).array.shape == (7, 8, 1)


def test_the_unit_of_length_is_honoured(tmp_path):
    path = save(tmp_path / "x.nii", affine=np.diag([1000.0, 1000.0, 2000.0, 1.0]))
    patch(path, UNITS, "B", 3)
    volume = read_volume(path)
    assert volume.geometry.spacing == (1.0, 1.0, 2.0)
    write_volume(tmp_path / "y.nii", volume.array, volume)
    assert nibabel.load(tmp_path / "y.nii").header.get_zooms() == (1000.0, 1000.0, 2000.0)


def test_a_file_that_is_not_there(tmp_path):
    assert "no such file" in refusal(tmp_path / "x.nii.gz")


def test_a_folder(tmp_path):
    (tmp_path / "x.nii").mkdir()
    assert "is a folder, wanted one file" in refusal(tmp_path / "x.nii")


def test_a_loop_of_links(tmp_path):
    (tmp_path / "x.nii").symlink_to(tmp_path / "x.nii")
    assert "cannot be opened" in refusal(tmp_path / "x.nii")


def test_a_name_that_no_system_takes(tmp_path):
    assert "E134" in refusal(tmp_path / ("x" * 300 + ".nii"))


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.nii")
    assert "pipe" in refusal(tmp_path / "x.nii")


def test_an_empty_file(tmp_path):
    (tmp_path / "x.nii.gz").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "x.nii.gz")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.nii.gz", b"this is a text", "is not gzip data; rename it to .nii"),
        ("x.nii", b"this is a text" * 40, "is not NIfTI data"),
        ("x.nii.gz", gzip.compress(b"this is a text" * 40, mtime=0), "is not NIfTI data"),
        ("x.nii", gzip.compress(b"abc", mtime=0), "rename it to .nii.gz"),
        ("x.nii", struct.pack("<i", 348) + bytes(20), r"ends early, inside its header (24 of 348 bytes)"),
        ("x.nii", struct.pack("<i", 348) + bytes(600), "Analyze"),
        (
            "x.nii",
            struct.pack("<i", 348) + bytes(340) + b"ni1\0" + bytes(99),
            "a .hdr/.img pair; name the .img file",
        ),
        ("x.png", b"\x89PNG", "unknown kind of file '.png', wanted .nii.gz, .nii, .img.gz, .img, .mgz"),
        ("x.mat", b"MATLAB", "unknown kind of file '.mat'"),
    ],
)
def test_files_of_another_kind(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    assert found in refusal(tmp_path / name)


def test_plain_nifti_named_gz(tmp_path):
    save(tmp_path / "x.nii").rename(tmp_path / "x.nii.gz")
    assert "rename it to .nii" in refusal(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("keep", [15, 60, 200, 300, -9, -1])
def test_truncated_gzip(tmp_path, keep):
    path = save(tmp_path / "x.nii.gz")
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(path)
    assert "E104" in message
    assert "ends early" in message


def test_truncated_plain(tmp_path):
    path = save(tmp_path / "x.nii")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    assert f"ends early ({whole - 10} of {whole} bytes)" in refusal(path)


def test_a_flipped_byte_in_gzip_data_is_noticed(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.random.default_rng(5).integers(0, 9999, (16, 16, 16)).astype(np.int16))
    data = bytearray(path.read_bytes())
    data[-5000] ^= 0xFF
    path.write_bytes(data)
    assert "E104" in refusal(path)


def test_two_dimensions(tmp_path):
    assert "is 2-D with the shape (7, 8), wanted a 3-D volume" in refusal(
        save(tmp_path / "x.nii", np.ones((7, 8), np.uint8))
    )


def test_several_volumes(tmp_path):
    array = np.random.default_rng(0).integers(0, 200, (*SHAPE, 5)).astype(np.int16)
    path = save(tmp_path / "x.nii.gz", array)
    assert "is 4-D with 5 volumes, wanted one 3-D volume; choose one: --volume 0 to 4" in refusal(path)
    for index in (0, 2, 4):
        np.testing.assert_array_equal(read_volume(path, volume=index).array, array[..., index])
    with pytest.raises(UsageError, match="volume must be 0 to 4, got 5"):
        read_volume(path, volume=5)
    with pytest.raises(InputError, match="5 volumes"):
        read_labels(path)


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds colours (RGB)"),
        (np.dtype("c8"), "holds complex numbers"),
    ],
)
def test_colours_and_complex_numbers(tmp_path, dtype, found):
    assert found in refusal(save(tmp_path / "x.nii", np.zeros(SHAPE, dtype)))


def test_unknown_voxel_type(tmp_path):
    assert "unknown voxel type 3" in refusal(patch(save(tmp_path / "x.nii"), DATATYPE, "h", 3))


def test_nan_and_infinite_voxels(tmp_path):
    array = np.ones(SHAPE, np.float32)
    array[1, 2, 3], array[3, 4, 5] = np.nan, -np.inf
    path = save(tmp_path / "x.nii.gz", array)
    assert "2 voxels are NaN or infinite, the first at index (1, 2, 3)" in refusal(path)
    volume = read_volume(path, nan_to_zero=True)
    assert volume.array.sum() == 118
    assert volume.array[1, 2, 3] == 0
    assert "2 NaN or infinite voxels" in volume.notices[0]
    with pytest.raises(InputError, match=r"2 voxels are NaN.*\(1, 2, 3\)"):
        read_labels(path)


def test_a_scale_that_overflows_is_reported_as_infinite(tmp_path):
    path = patch(save(tmp_path / "x.nii", np.full(SHAPE, 1000, np.int16)), SLOPE, "2f", 1e37, 0.0)
    assert "120 voxels are NaN or infinite" in refusal(path)


def test_an_infinite_scale(tmp_path):
    assert "scales its voxels by inf" in refusal(patch(save(tmp_path / "x.nii"), SLOPE, "2f", np.inf, 0.0))


@pytest.mark.parametrize(("length", "found"), [(0, "length 0"), (-3, "length -3")])
def test_an_axis_without_voxels(tmp_path, length, found):
    assert found in refusal(patch(save(tmp_path / "x.nii"), DIM + 4, "h", length))


@pytest.mark.parametrize("ndim", [0, 8, -1, 1000])
def test_a_number_of_axes_that_cannot_be(tmp_path, ndim):
    assert "E107" in refusal(patch(save(tmp_path / "x.nii"), DIM, "h", ndim))


@pytest.mark.parametrize("offset", [np.nan, np.inf, -5.0, 348.0, 352.5, 1e20])
def test_voxels_that_start_nowhere(tmp_path, offset):
    assert "E104" in refusal(patch(save(tmp_path / "x.nii"), VOX_OFFSET, "f", offset))


def test_nan_affine(tmp_path):
    path = patch(save(tmp_path / "x.nii", qform=0), SROW, "f", np.nan)
    assert "affine holds NaN" in refusal(path)


def test_singular_affine(tmp_path):
    path = patch(save(tmp_path / "x.nii", qform=0), SROW, "4f", 0.0, 0.0, 0.0, 0.0)
    assert "affine is singular" in refusal(path)


def test_a_quaternion_longer_than_one(tmp_path):
    path = patch(save(tmp_path / "x.nii", sform=0), QUATERN, "3f", 0.9, 0.9, 0.9)
    assert "quaternion" in refusal(path)


@pytest.mark.parametrize("size", [0.0, -2.0, np.nan])
def test_voxel_sizes_that_cannot_be(tmp_path, size):
    path = patch(save(tmp_path / "x.nii", sform=0), PIXDIM + 4, "f", size)
    assert "wanted positive numbers" in refusal(path)


def test_a_file_without_a_position(tmp_path):
    path = save(tmp_path / "x.nii", sform=0, qform=0)
    assert "both 0" in refusal(path)
    volume = read_volume(path, assume_affine=True)
    np.testing.assert_array_equal(volume.geometry.affine, nibabel.load(path).affine)
    assert "no position" in volume.notices[0]
    write_volume(tmp_path / "y.nii", volume.array, volume)
    header = nibabel.load(tmp_path / "y.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "y.nii").affine, volume.geometry.affine)


def test_two_forms_that_disagree(tmp_path):
    path = save(tmp_path / "x.nii")
    moved = LAS.copy()
    moved[1, 3] += 0.01
    image = nibabel.load(path)
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.set_sform(moved, code=1)
    image.set_qform(LAS, code=1)
    nibabel.save(image, path)
    assert "sform and qform place it up to 0.01 mm apart" in refusal(path)
    sform, qform = (read_volume(path, prefer=form) for form in ("sform", "qform"))
    np.testing.assert_allclose(sform.geometry.affine, moved, atol=1e-5)
    np.testing.assert_allclose(qform.geometry.affine, LAS, atol=1e-5)
    write_volume(tmp_path / "y.nii", qform.array, qform)
    after = nibabel.load(tmp_path / "y.nii")
    np.testing.assert_array_equal(after.get_sform(), image.get_sform())
    np.testing.assert_array_equal(after.get_qform(), image.get_qform())
    with pytest.raises(UsageError, match="prefer must be"):
        read_volume(path, prefer="both")


def test_a_disagreement_counts_only_where_both_forms_are_in_use(tmp_path):
    path = save(tmp_path / "x.nii", qform=0)
    patch(path, QUATERN, "6f", 0.1, 0.2, 0.3, 1, 2, 3)
    np.testing.assert_array_equal(read_volume(path).geometry.affine, LAS)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_of_the_quaternion_is_no_disagreement(tmp_path, seed):
    """Near a half turn, float32 quaternions are coarse: honest files must still load."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    turn = nibabel.quaternions.angle_axis2mat(np.pi - 10.0 ** -rng.uniform(1, 6), axis)
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.5, 2.0, 3)
    affine[:3, 3] = rng.uniform(-150, 150, 3)
    path = save(tmp_path / "x.nii.gz", np.ones((250, 2, 250), np.uint8), affine)
    np.testing.assert_array_equal(read_volume(path).geometry.affine, nibabel.load(path).affine)


def test_a_header_that_claims_too_much_is_refused_before_reading(tmp_path):
    path = save(tmp_path / "x.nii")
    patch(path, DIM, "4h", 3, 32767, 32767, 32767)
    message = refusal(path)
    assert "claims 32767x32767x32767 voxels" in message
    assert f"{path.stat().st_size} bytes" in message
    packed = tmp_path / "y.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "claims 32767x32767x32767 voxels" in refusal(packed)


def test_the_limit_of_memory(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.zeros((100, 100, 100), np.uint8))
    assert "need 0.004 GB, the limit is 0.001 GB" in refusal(path, max_gb=0.001)
    assert read_volume(path, max_gb=0.004).array.shape == (100, 100, 100)


def test_unusual_grids_are_noticed(tmp_path):
    (flat,) = read_volume(save(tmp_path / "a.nii", affine=np.diag([0.5, 0.5, 6.0, 1.0]))).notices
    assert "12 times longer" in flat
    (coarse,) = read_volume(save(tmp_path / "b.nii", affine=np.diag([1000.0, 1000.0, 1000.0, 1.0]))).notices
    assert "1e+03 x 1e+03 x 1e+03 mm" in coarse


def test_labels_stored_as_floats_are_whole_numbers(tmp_path):
    array = np.random.default_rng(0).integers(0, 4, SHAPE)
    labels = read_labels(save(tmp_path / "x.nii.gz", array.astype(np.float64)), allowed=range(4))
    assert labels.array.dtype == np.int32
    np.testing.assert_array_equal(labels.array, array)


def test_fractional_labels(tmp_path):
    array = np.ones(SHAPE, np.float32)
    array[0, 1, 2] = 0.999
    with pytest.raises(InputError, match=r"found 0\.999 at index \(0, 1, 2\) and 1 fractions in all.*E122"):
        read_labels(save(tmp_path / "x.nii.gz", array))


def test_unknown_labels_are_listed_with_their_count(tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[0], array[1, 0, 0] = 2, 77
    path = save(tmp_path / "x.nii.gz", array)
    with pytest.raises(InputError, match=r"unknown label 77 \(1 voxels\), wanted 0, 1, 2, 3.*E122"):
        read_labels(path, allowed=range(4))
    assert set(np.unique(read_labels(path).array)) == {0, 2, 77}


def test_labels_beyond_32_bits(tmp_path):
    path = save(tmp_path / "x.nii", np.full(SHAPE, 2**40), dtype=np.int64)
    with pytest.raises(InputError, match="do not fit 32 bits"):
        read_labels(path)
