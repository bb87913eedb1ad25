"""slic: what holds for every image, mask, spacing and number of segments."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from voxpool.errors import UsageError
from voxpool.supervoxels import slic

SHAPES = st.lists(st.integers(1, 11), min_size=2, max_size=3).map(tuple)
DTYPES = st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, dict]:
    """Image, mask with at least one voxel, number of segments and other options."""
    shape = draw(SHAPES)
    dtype = np.dtype(draw(DTYPES))
    numbers = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    image = draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **numbers), fill=st.nothing()))
    assume(dtype.kind != "f" or (np.abs(image.astype("f8")) < 1e300).all())
    mask = draw(arrays.arrays(bool, shape))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    n_segments = draw(st.integers(1, int(mask.sum())))
    options = {
        "compactness": draw(st.sampled_from([0.01, 0.1, 1.0, 1e6])),
        "spacing": draw(st.lists(st.sampled_from([0.3, 1.0, 2.5]), min_size=len(shape), max_size=len(shape))),
        "min_size_factor": draw(st.sampled_from([0.0, 0.25, 0.9])),
        "max_num_iter": draw(st.integers(1, 4)),
    }
    return image, mask, n_segments, options


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_label_is_one_component_and_the_mask_is_exact(case: tuple) -> None:
    image, mask, n_segments, options = case
    segments = slic(image, n_segments, mask=mask, **options)
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(segments >= 0, mask)
    ids, first = np.unique(segments[mask], return_index=True)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    assert (np.diff(first) > 0).all()
    for k in ids:
        assert ndimage.label(segments == k)[1] == 1  # SciPy's default is neighbours by face


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(1e-3, 1e3))
def test_the_unit_of_the_spacing_does_not_matter(case: tuple, unit: float) -> None:
    image, mask, n_segments, options = case
    unit = 2.0 ** round(np.log2(unit))  # exact, so that rounding has no say
    scaled = options | {"spacing": [mm * unit for mm in options["spacing"]]}
    np.testing.assert_array_equal(
        slic(image, n_segments, mask=mask, **options), slic(image, n_segments, mask=mask, **scaled)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 2), st.integers(1, 40))
@example(60, 0, 60)
def test_a_mask_one_voxel_wide_is_cut_along_it(length: int, axis: int, n_segments: int) -> None:
    shape = np.insert([5, 5], axis, length)
    mask = np.zeros(shape, bool)
    mask[tuple(slice(None) if a == axis else 2 for a in range(3))] = True
    image = np.random.default_rng(length).random(shape)
    segments = slic(image, min(n_segments, length), mask=mask)
    line = segments[mask]
    assert (np.diff(line) >= 0).all()
    assert line[0] == 0
    assert (np.diff(line) <= 1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (2, 2, 2), (1, 3), (1, 1)])
def test_volumes_smaller_than_a_cell(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    image = np.arange(size, dtype=float).reshape(shape)
    assert (slic(image, 1) == 0).all()
    np.testing.assert_array_equal(slic(image, size).ravel(), np.arange(size))


def test_one_segment_is_the_mask_and_more_than_voxels_are_refused() -> None:
    image = np.random.default_rng(0).random((9, 8, 7))
    assert (slic(image, 1) == 0).all()
    with pytest.raises(UsageError, match="n_segments is 505, but there are only 504 voxels to group: ask for fewer"):
        slic(image, 505)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_with_their_count(value: float) -> None:
    image = np.zeros((6, 6, 6))
    image[1, 2:4, 3] = value
    with pytest.raises(UsageError, match="the image has 2 NaN, infinite or immense voxels inside the mask: replace"):
        slic(image, 8)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.0, 7.0, -1e5]), SHAPES, st.integers(1, 9))
def test_constant_images_are_cut_into_compact_parts(value: float, shape: tuple[int, ...], n_segments: int) -> None:
    size = int(np.prod(shape))
    segments = slic(np.full(shape, value), min(n_segments, size))
    assert segments.max() + 1 <= max(2, 1.5 * min(n_segments, size) + 1)


def test_quality_is_the_same_however_the_volume_lies() -> None:
    rng = np.random.default_rng(0)
    fields = [ndimage.gaussian_filter(rng.standard_normal((36, 40, 44)), 4) for _ in range(4)]
    labels = np.argmax(fields, 0)
    image = ndimage.gaussian_filter(np.array([0.1, 0.4, 0.65, 0.9])[labels], 0.5)
    image += 0.05 * rng.standard_normal(image.shape)
    spacing = np.array([1.0, 1.0, 1.5])

    def accuracy(segments: np.ndarray, truth: np.ndarray) -> float:
        counts = np.zeros((segments.max() + 1, 4))
        np.add.at(counts, (segments.ravel(), truth.ravel()), 1)
        return counts.max(1).sum() / truth.size

    found = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turn = tuple(slice(None, None, f) for f in flips)
            segments = slic(image.transpose(axes)[turn], 300, spacing=spacing[list(axes)])
            found.append(accuracy(segments, labels.transpose(axes)[turn]))
    assert len(found) == 48
    assert max(found) - min(found) < 0.01
    assert min(found) > 0.9
