"""blocks: cubes by integer division."""

import numpy as np
import pytest
import torch

from voxpool.errors import UsageError
from voxpool.supervoxels import blocks


def test_size_is_integer_division():
    z, y, x = np.indices((7, 9, 4))
    expected = (z // 2 * 3 + y // 3) * 4 + x // 1
    found = blocks((7, 9, 4), size=(2, 3, 1))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(blocks((4, 6), size=3), [[0] * 3 + [1] * 3] * 3 + [[2] * 3 + [3] * 3])


def test_one_size_with_spacing_counts_along_the_finest_axis():
    np.testing.assert_array_equal(blocks((12, 12, 12), size=6, spacing=(1, 2, 3)), blocks((12, 12, 12), size=(6, 3, 2)))
    np.testing.assert_array_equal(blocks((4, 4), size=1, spacing=(1, 5)), np.arange(16).reshape(4, 4))


def test_n_segments_gives_equal_cubes():
    found = blocks((12, 15, 9), n_segments=60)
    np.testing.assert_array_equal(found, blocks((12, 15, 9), size=3))


def test_blocks_are_cubic_in_mm():
    found = blocks((40, 40, 10), n_segments=64, spacing=(1, 1, 4))
    assert found.max() + 1 == 64
    assert len(np.unique(found[:, 0, 0])) == len(np.unique(found[0, 0])) == 4


@pytest.mark.parametrize("kept", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("arguments", [{"n_segments": 40}, {"size": 4}])
def test_mask_drops_blocks_and_keeps_ids_consecutive(kept, arguments):
    mask = np.random.default_rng(0).random((20, 16, 18)) < kept
    arguments = {k: min(v, int(mask.sum())) for k, v in arguments.items()}
    found = blocks(mask.shape, mask=mask, **arguments)
    np.testing.assert_array_equal(found == -1, ~mask)
    np.testing.assert_array_equal(np.unique(found[mask]), np.arange(found.max() + 1))
    if "size" in arguments:
        whole = blocks(mask.shape, size=4)
        pairs = np.unique(np.stack([found[mask], whole[mask]]), axis=1)
        assert pairs.shape[1] == found.max() + 1
        assert (np.diff(pairs[1]) > 0).all()


@pytest.mark.parametrize(("n_segments", "tolerance"), [(60, 0.1), (200, 0.1), (600, 0.05), (5000, 0.05)])
def test_number_of_blocks_in_a_ball_is_near_what_was_asked(n_segments, tolerance):
    grid = np.indices((70, 60, 64)) - np.array([35, 30, 32]).reshape(3, 1, 1, 1)
    mask = (grid**2).sum(axis=0) < 27**2
    found = blocks(mask.shape, n_segments=n_segments, mask=mask).max() + 1
    assert found == pytest.approx(n_segments, rel=tolerance)


def test_a_block_in_two_pieces_keeps_one_id():
    mask = np.array([[True, False, True]])
    assert blocks((1, 3), size=3, mask=mask).tolist() == [[0, -1, 0]]


def test_torch_mask_gives_a_torch_result():
    mask = torch.ones(4, 6, dtype=torch.bool)
    found = blocks((4, 6), size=2, mask=mask)
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), blocks((4, 6), size=2))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "exactly one of n_segments and size, got n_segments=None and size=None"),
        ({"n_segments": 3, "size": 2}, "exactly one of n_segments and size"),
        ({"size": 0}, "size must be a number of voxels of at least 1"),
        ({"size": (2, 2)}, r"one or one per axis \(3\), got \(2, 2\)"),
        ({"size": (2, 2, 2), "spacing": (1, 1, 1)}, "spacing has no effect on a size per axis"),
        ({"n_segments": 0}, "n_segments must be a whole number of at least 1"),
        ({"n_segments": 65}, "only 64 voxels"),
        ({"size": 2, "spacing": (1, 1)}, "spacing must be 3 positive numbers"),
        ({"size": 2, "mask": np.ones((4, 4))}, "mask must have the shape"),
        ({"shape": (4, 0, 4), "size": 2}, r"one positive length per axis, got \(4, 0, 4\)"),
        ({"shape": (), "size": 2}, "one positive length per axis"),
    ],
)
def test_bad_arguments_get_one_sentence(changes, sentence):
    arguments = {"shape": (4, 4, 4), **changes}
    with pytest.raises(UsageError, match=sentence):
        blocks(arguments.pop("shape"), **arguments)
