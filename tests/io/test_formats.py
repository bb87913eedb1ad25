"""Every format beside NIfTI: read as an independent writer wrote it, refused by name where it cannot be."""

import gzip
import itertools
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from voxpool.errors import InputError, UsageError
from voxpool.io import EXTENSIONS, files_of, read_geometry, read_labels, read_volume, stem, write_volume

SHAPE = (7, 6, 5)
RNG = np.random.default_rng(3)
ARRAY = RNG.integers(-900, 900, SHAPE).astype(np.int16)
ITK = ("nrrd", "nhdr", "mha", "mhd")
TURNED = (
    sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.1).GetMatrix(),
    *(
        np.ravel(np.eye(3)[list(order)] * signs)
        for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    ),
)


def image_of(array, direction=TURNED[0]):
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin((-30.25, 14.5, 71.0))
    image.SetDirection(np.asarray(direction, float).tolist())
    return image


@pytest.mark.parametrize("ending", ITK)
@pytest.mark.parametrize("compressed", [False, True])
def test_itk_formats_equal_the_same_image_as_nifti(tmp_path, ending, compressed):
    """NIfTI's place is read by nibabel, the others' by ITK: two readers, one place."""
    for number, direction in enumerate(TURNED):
        image = image_of(ARRAY, direction)
        sitk.WriteImage(image, str(tmp_path / "twin.nii.gz"))
        path = tmp_path / f"{number}.{ending}"
        sitk.WriteImage(image, str(path), useCompression=compressed)
        twin, found = read_volume(tmp_path / "twin.nii.gz"), read_volume(path)
        np.testing.assert_array_equal(found.array, ARRAY)
        np.testing.assert_allclose(found.geometry.affine, twin.geometry.affine, atol=1e-4)
        assert read_geometry(path) == found.geometry
        assert found.array.dtype == np.float32


@pytest.mark.parametrize("ending", ["mgz", "mgh"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_mgh_is_read_as_freesurfers_rule_says(tmp_path, ending, dtype):
    for direction in TURNED:
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(direction, (3, 3)) * [0.9, 1.1, 2.5]
        affine[:3, 3] = (-30.25, 14.5, 71)
        array = np.abs(ARRAY // 8).astype(dtype)
        path = tmp_path / f"a.{ending}"
        nib.MGHImage(array, affine).to_filename(path)
        found = read_volume(path)
        np.testing.assert_array_equal(found.array, array)
        np.testing.assert_allclose(found.geometry.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(read_labels(path).array, array)
    assert stem(path.name) == "a"


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair, nib.AnalyzeImage, nib.Spm99AnalyzeImage])
@pytest.mark.parametrize("ending", [".img", ".img.gz"])
def test_header_and_voxels_apart(tmp_path, kind, ending):
    affine = np.diag([-1.5, 2, 3, 1])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2  # where a header without a position is put
    path = tmp_path / f"a{ending}"
    nib.save(kind(ARRAY, affine), path)
    header = tmp_path / f"a{ending.replace('img', 'hdr')}"
    assert files_of(path) == [path, header]
    analyze = not issubclass(kind, nib.Nifti1Pair)
    if analyze:
        with pytest.raises(InputError, match=r"left and right are unknown.*--assume-affine \(E113\)"):
            read_volume(path)
    found = read_volume(path, assume_affine=analyze)
    np.testing.assert_array_equal(found.array, ARRAY)
    np.testing.assert_allclose(found.geometry.affine, affine)
    write_volume(tmp_path / "out.nii.gz", found.array, like=found)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, affine)
    with pytest.raises(InputError, match=r"is a header, wanted the file of voxels; name the \.img beside it"):
        read_volume(header)
    header.unlink()
    with pytest.raises(InputError, match=r"a\.img.*its header a\.hdr is missing; copy it beside it \(E101\)"):
        read_volume(path)


def test_what_is_read_can_be_written_as_nifti_at_its_place(tmp_path):
    nib.MGHImage(ARRAY.astype(np.float32), np.diag([-1.0, 2, 3, 1])).to_filename(tmp_path / "a.mgz")
    sitk.WriteImage(image_of(ARRAY), str(tmp_path / "a.nrrd"))
    for name in ("a.mgz", "a.nrrd"):
        volume = read_volume(tmp_path / name)
        write_volume(tmp_path / "out.nii.gz", volume.array.astype(np.int16), like=volume)
        back = nib.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(np.asarray(back.dataobj), ARRAY)
        np.testing.assert_allclose(back.affine, volume.geometry.affine, atol=1e-4)
        assert (back.header["qform_code"], back.header["sform_code"]) == (1, 1)


@pytest.mark.parametrize("name", ["a.mgz", "a.mha"])
def test_one_of_several_volumes_is_chosen(tmp_path, name):
    several = RNG.integers(0, 99, (*SHAPE, 3)).astype(np.int16)
    path = tmp_path / name
    if name.endswith("mgz"):
        nib.MGHImage(several, np.eye(4)).to_filename(path)
    else:
        sitk.WriteImage(sitk.JoinSeries([image_of(several[..., n], TURNED[1]) for n in range(3)]), str(path))
    with pytest.raises(InputError, match=r"3 volumes.*--volume 0 to 2 \(E109\)"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, volume=1).array, several[..., 1])
    with pytest.raises(UsageError, match="0 to 2"):
        read_volume(path, volume=3)


def test_a_volume_of_vectors_is_several_volumes(tmp_path):
    several = RNG.integers(0, 99, (*SHAPE, 6)).astype(np.float32)
    image = sitk.GetImageFromArray(several.transpose(2, 1, 0, 3), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "dwi.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "dwi.nrrd", volume=4).array, several[..., 4])


def text_file(path, text, data=b""):
    path.write_bytes(text.encode() + data)
    return path


@pytest.fixture
def files(tmp_path):
    """A good file of each format."""
    image = image_of(ARRAY)
    for ending in ITK:
        (tmp_path / ending).mkdir()
        sitk.WriteImage(image, str(tmp_path / ending / f"a.{ending}"), useCompression=ending in ("nrrd", "mha"))
    nib.MGHImage(ARRAY.astype(np.int32), np.eye(4)).to_filename(tmp_path / "a.mgz")
    nib.MGHImage(ARRAY.astype(np.int32), np.eye(4)).to_filename(tmp_path / "a.mgh")
    return {ending: tmp_path / ending / f"a.{ending}" for ending in ITK} | {
        ending: tmp_path / f"a.{ending}" for ending in ("mgz", "mgh")
    }


def replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_each_refusal_says_what_and_what_to_do(files, tmp_path):
    colours = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "rgb.mha"))
    sitk.WriteImage(sitk.Cast(image_of(ARRAY), sitk.sitkComplexFloat32), str(tmp_path / "complex.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY[0]), str(tmp_path / "flat.mha"))
    (tmp_path / "empty.nrrd").touch()
    no_space = replaced(files["nrrd"], b"space: left-posterior-superior\n", b"space dimension: 3\n")
    for path, message in {
        tmp_path / "none.mgz": r"no such file.*\(E101\)",
        tmp_path / "empty.nrrd": r"is empty.*\(E102\)",
        text_file(tmp_path / "text.nrrd", "no image"): r"cannot be read.*\(E103\)",
        text_file(tmp_path / "text.mgh", "no image"): r"ends early.*8 of 284.*\(E104\)",
        text_file(tmp_path / "long.mgh", "no image" * 60): r"is not MGH data.*\(E103\)",
        shutil.copy(files["mgh"], tmp_path / "b.mgz"): r"no gzip data; rename it to \.mgh \(E103\)",
        shutil.copy(files["mgz"], tmp_path / "b.mgh"): r"gzip data; rename it to \.mgz \(E103\)",
        tmp_path / "rgb.mha": r"colours.*\(E110\)",
        tmp_path / "complex.nrrd": r"complex.*\(E110\)",
        tmp_path / "flat.mha": r"2-D.*\(E108\)",
        no_space: r"names no space.*\(E113\)",
        replaced(files["mhd"], b"a.raw", b"../a.raw"): r"another folder.*\(E134\)",
        replaced(files["nhdr"], b"a.raw", b"gone.raw"): r"gone\.raw are missing.*\(E101\)",
        replaced(files["mha"], b"7 6 5", b"9999 9999 9999"): r"claims 9999x9999x9999.*\(E106\)",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            read_volume(path)
        assert str(tmp_path) not in str(caught.value) or "E101" in str(caught.value)
    assert read_volume(no_space, assume_affine=True).notices[0].startswith("it names no space")


def test_mgh_fields_that_mean_nothing(files):
    good = files["mgh"].read_bytes()

    def with_field(offset, dtype, *values):
        block = np.asarray(values, dtype).tobytes()
        files["mgh"].write_bytes(good[:offset] + block + good[offset + len(block) :])
        return files["mgh"]

    for change, message in {
        (4, ">i4", -3): "E107",
        (4, ">i4", 2_000_000_000): "E106",
        (20, ">i4", 99): "E110",
        (28, ">i2", 0): "E113",
        (30, ">f4", 0.0): "E115",
        (30, ">f4", np.nan): "E112",
        (42, ">f4", 0.0, 0.0, 0.0): "E112",
    }.items():
        with pytest.raises(InputError, match=message):
            read_volume(with_field(*change))
    assumed = read_volume(with_field(28, ">i2", 0), assume_affine=True)
    files["mgh"].write_bytes(good)
    np.testing.assert_array_equal(assumed.array, ARRAY)
    assert assumed.geometry.orientation == "LIA", "FreeSurfer's own: coronal"
    assert assumed.geometry.spacing == (1, 1, 1)
    np.testing.assert_allclose(assumed.geometry.affine @ [*(np.array(SHAPE) / 2), 1], [0, 0, 0, 1])


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    header = b"NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2000 2000 2000\n"
    header += b"space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: gzip\nspace origin: (0,0,0)\n\n"
    path = tmp_path / "bomb.nrrd"
    path.write_bytes(header + gzip.compress(bytes(10_000_000)))
    with pytest.raises(InputError, match="E106"):
        read_volume(path)


def test_stems_are_names_without_their_endings():
    assert {stem(f"scan.v1{ending}") for ending in EXTENSIONS} == {"scan.v1"}
    assert stem("SCAN.NII.GZ") == "SCAN"
    assert stem("scan.png") is None
