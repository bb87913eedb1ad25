"""The SLIC and connectivity kernels against slow float64 versions of the same rules."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import ndimage

from voxpool.kernels.connectivity_numba import connect
from voxpool.kernels.slic_numba import assign


def make_case(shape, cells, channels=1, *, seed=0, kept=1.0):
    rng = np.random.default_rng(seed)
    features = np.rint(rng.random((channels, *shape)) * 2**16) / 2**16
    inside = rng.random(shape) < kept
    edges = tuple(np.arange(n + 1) * length // n for length, n in zip(shape, cells, strict=True))
    weights = np.array([0.010, 0.013, 0.007, 1 / channels])
    return features.astype(np.float32), inside, edges, weights


def slow_slic(features, inside, edges, weights, iterations):
    """Every voxel measures the distance to every centre of the neighbouring cells, in float64."""
    cells = tuple(len(e) - 1 for e in edges)
    voxels = np.argwhere(inside)
    home = np.stack([np.searchsorted(e, v, "right") - 1 for e, v in zip(edges, voxels.T, strict=True)], axis=1)
    points = np.concatenate([voxels, features[:, inside].T], axis=1).astype(np.float64)
    weights = np.concatenate([weights[:3], np.full(len(features), weights[3])])
    chosen = np.ravel_multi_index(tuple(home.T), cells)
    seeded = np.unique(chosen)
    centres = np.full((np.prod(cells), points.shape[1]), np.nan)
    for _ in range(iterations):
        for k in np.unique(chosen):
            centres[k] = points[chosen == k].mean(axis=0)
        distance = np.full((len(points), len(centres)), np.inf)
        for k in seeded:
            near = (np.abs(home - np.unravel_index(k, cells)) <= 1).all(axis=1)
            distance[near, k] = ((points[near] - centres[k]) ** 2 @ weights[:, None])[:, 0]
        chosen = distance.argmin(axis=1)
    segments = np.full(inside.shape, -1)
    segments[inside] = chosen
    return segments


def renumbered(ids):
    """Ids 0..K-1 in raster order of their first voxel; -1 stays."""
    known, first = np.unique(ids, return_index=True)
    order = [i for _, i in sorted(zip(first, known, strict=True)) if i >= 0]
    out = np.full(ids.shape, -1)
    for number, i in enumerate(order):
        out[ids == i] = number
    return out


def slow_round(ids, features, marked):
    """Join all marked groups with what touches them, by looking at the dilated groups themselves; renumbered."""
    means = {k: features[:, ids == k].mean(axis=1, dtype=np.float64) for k in np.unique(ids[ids >= 0])}
    groups = {k: {k} for k in means}
    for small in marked:
        group = ids == small
        touching = np.unique(ids[ndimage.binary_dilation(group) & ~group & (ids >= 0)])
        if touching.size:
            target = min(touching, key=lambda t: (((means[small] - means[t]) ** 2).sum(), t))
            union = groups[small] | groups[target]
            groups.update(dict.fromkeys(union, union))
    return renumbered(np.vectorize(lambda k: min(groups[k]) if k >= 0 else -1, otypes=[int])(ids))


def slow_connect(segments, features, min_size, most):
    """Components by SciPy; then small ones, and the smallest of too many, join their neighbours."""
    components = np.full(segments.shape, -1)
    for k in np.unique(segments[segments >= 0]):
        found, _ = ndimage.label(segments == k)
        components[found > 0] = found[found > 0] + components.max()
    ids, before = renumbered(components), None
    while before is None or ids.max() < before:
        before = ids.max()
        ids = slow_round(ids, features, np.flatnonzero(np.bincount(ids[ids >= 0]) < min_size))
    before = ids.max() + 1
    while most <= ids.max() < before:
        before = ids.max()
        sizes = np.bincount(ids[ids >= 0])
        dilated = [ndimage.binary_dilation(ids == k) & (ids != k) & (ids >= 0) for k in range(len(sizes))]
        below = [k for k in range(len(sizes)) if sizes[k] < (segments >= 0).sum() / most and dilated[k].any()]
        ids = slow_round(ids, features, sorted(below, key=lambda k: (sizes[k], k))[: len(sizes) - most])
    return ids, ids.max() + 1


@pytest.mark.parametrize("kept", [1.0, 0.5])
@pytest.mark.parametrize(
    ("shape", "cells", "channels"),
    [
        ((9, 11, 10), (3, 3, 2), 1),
        ((8, 1, 13), (2, 1, 4), 1),
        ((7, 8, 9), (2, 2, 3), 3),
        ((30, 17, 19), (2, 1, 1), 1),  # cells of more voxels than the kernel takes at a time
        ((28, 17, 19), (2, 1, 1), 2),
        ((10, 20, 20), (1, 2, 2), 1),  # as many voxels as can be added up at a time
    ],
)
@pytest.mark.parametrize("iterations", [1, 4])
def test_slic_equals_the_slow_version(shape, cells, channels, kept, iterations):
    case = make_case(shape, cells, channels, seed=sum(shape), kept=kept)
    np.testing.assert_array_equal(assign(*case, iterations), slow_slic(*case, iterations))


def test_cells_without_mask_voxels_have_no_centre():
    features, inside, edges, weights = make_case((12, 12, 12), (3, 3, 3))
    inside[:, 4:8] = False
    case = features, inside, edges, weights
    segments = assign(*case, 3)
    np.testing.assert_array_equal(segments, slow_slic(*case, 3))
    assert not np.isin(np.unravel_index(segments[inside], (3, 3, 3))[1], 1).any()


@pytest.mark.parametrize("kept", [1.0, 0.6])
@pytest.mark.parametrize(("min_size", "most"), [(0, 999), (2, 999), (6, 999), (40, 999), (0, 25), (3, 10)])
@pytest.mark.parametrize("shape", [(6, 7, 8), (9, 1, 12)])
def test_connect_equals_the_slow_version(shape, min_size, most, kept):
    rng = np.random.default_rng(3)
    features = (np.rint(rng.random((2, *shape)) * 2**16) / 2**16).astype(np.float32)
    segments = rng.integers(0, 4, shape).astype(np.int32)
    segments[rng.random(shape) >= kept] = -1
    found, count = connect(segments, features, min_size, most)
    wanted, wanted_count = slow_connect(segments, features, min_size, most)
    np.testing.assert_array_equal(found, wanted)
    assert count == wanted_count


def test_merging_prefers_the_nearest_mean_then_the_first_segment():
    segments = np.array([[[0, 0, 0, 1, 2, 2, 2]]], np.int32)
    features = np.array([[[[0, 0, 0, 4, 5, 5, 5]]]], np.float32)
    assert connect(segments, features, 2, 9)[0].ravel().tolist() == [0, 0, 0, 1, 1, 1, 1]
    features[..., 4:] = 8
    assert connect(segments, features, 2, 9)[0].ravel().tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_an_island_too_small_to_merge_stays():
    segments = np.array([[[0, -1, 0, 0, 0]]], np.int32)
    found, count = connect(segments, np.zeros((1, 1, 1, 5), np.float32), 3, 1)
    assert found.ravel().tolist() == [0, -1, 1, 1, 1]
    assert count == 2


def test_bit_equal_from_run_to_run_and_for_any_number_of_threads():
    case = make_case((40, 33, 37), (7, 6, 6), 2, kept=0.9)
    default = torch.get_num_threads()
    results = []
    try:
        for threads in (1, min(2, default), default, 1):
            torch.set_num_threads(threads)
            results.append(assign(*case, 6))
    finally:
        torch.set_num_threads(default)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def _segment_in_child(queue, case):
    queue.put(assign(*case, 3))


def test_works_in_a_forked_process_and_from_several_threads():
    case = make_case((20, 20, 20), (4, 4, 4))
    expected = assign(*case, 3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_segment_in_child, args=(queue, case))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join()
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: assign(*case, 3), range(8)):
            np.testing.assert_array_equal(result, expected)
