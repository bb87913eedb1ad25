from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image

from napari_voxpool.display import layer_of_volume, shown_by
from voxpool.errors import InputError
from voxpool.io import Geometry, Volume

ORIENTATIONS = [
    "".join(axes[i][side] for i, side in zip(order, sides, strict=True))
    for axes in [["LR", "PA", "IS"]]
    for order in permutations(range(3))
    for sides in product((0, 1), repeat=3)
]


def stored(orientation, tilt=0.0):
    """A file's volume whose voxels are numbered, stored in an orientation."""
    angle = np.deg2rad(tilt)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    affine[:3, :3] *= [1.0, 1.5, 2.0]
    affine[:3, 3] = (-7, 5, 30)
    array = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    wanted = nib.orientations.axcodes2ornt(orientation)
    ornt = nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    turned = nib.orientations.apply_orientation(array, ornt)
    back = nib.orientations.inv_ornt_aff(ornt, array.shape)
    return Volume(turned, Geometry(turned.shape, affine @ back))


def as_layer(volume):
    data, options, kind = layer_of_volume(volume, "head")
    assert kind == "image"
    return Image(data, **options)


@pytest.mark.parametrize("tilt", [0, 8, 25])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_shown_alike_and_comes_back_exactly(orientation, tilt):
    volume = stored(orientation, tilt)
    assert volume.geometry.orientation == orientation
    layer = as_layer(volume)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume.array, volume.geometry.affine))
    np.testing.assert_array_equal(layer.data, np.asarray(canonical.dataobj).T)
    np.testing.assert_allclose(layer.scale, (2.0, 1.5, 1.0))
    if tilt == 0:
        world = nib.affines.apply_affine(canonical.affine, (3, 2, 1))
        np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), world[::-1])

    shown = shown_by(layer)
    back = shown.volume
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry == volume.geometry
    np.testing.assert_array_equal(shown.show(back.array), layer.data)
    np.testing.assert_array_equal(shown.store(np.asarray(layer.data)), back.array)


def test_layer_from_elsewhere_gets_its_place_from_napari():
    data = np.random.default_rng(0).random((4, 5, 6))
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    layer = Image(data, scale=(3, 2, 1), translate=(10, 20, 30), rotate=turn)
    shown = shown_by(layer)
    volume = shown.volume
    assert volume.array.shape == (6, 5, 4)
    assert volume.array.dtype == np.float32
    for s, a, r in [(0, 0, 0), (3, 1, 2), (1, 4, 5)]:
        assert volume.array[r, a, s] == np.float32(data[s, a, r])
        np.testing.assert_allclose(
            nib.affines.apply_affine(volume.geometry.affine, (r, a, s)), layer.data_to_world((s, a, r))[::-1]
        )
    np.testing.assert_array_equal(shown.show(volume.array), data.astype(np.float32))
    np.testing.assert_array_equal(shown.store(data.astype(np.float32)), volume.array)


def test_metadata_of_another_grid_is_not_believed():
    """A crop made in napari keeps the metadata of the whole; its own place counts."""
    whole = as_layer(stored("LAS"))
    crop = Image(whole.data[1:], scale=whole.scale, translate=(99, 0, 0), metadata=whole.metadata)
    volume = shown_by(crop).volume
    assert volume.geometry.shape == crop.data.shape[::-1]
    assert volume.geometry.affine[2, 3] == 99


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Image(np.zeros((8, 8, 8, 3), np.uint8), rgb=True, name="photo"), "photo is a colour image"),
        (Image(np.zeros((8, 8)), name="plane"), "plane is 2-dimensional"),
        (Image(np.zeros((3, 8, 8, 8)), name="series"), "series is 4-dimensional"),
        (
            Image([np.zeros((8, 8, 8)), np.zeros((4, 4, 4))], multiscale=True, name="levels"),
            "levels is multiscale",
        ),
        (Image(np.full((8, 8, 8), np.nan), contrast_limits=(0, 1), name="holes"), "holes holds NaN"),
    ],
)
def test_what_is_no_volume_is_refused_by_name(layer, words):
    with pytest.raises(InputError, match=words):
        shown_by(layer)
