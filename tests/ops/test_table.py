"""One literal table of small cases drives every backend, dtype and number of spatial axes."""

from math import inf, nan
from typing import NamedTuple

import pytest
import torch

from voxpool.kernels.registry import BACKENDS, FLOAT_DTYPES
from voxpool.ops import segment_pool, segment_unpool


class Row(NamedTuple):
    x: list[float]
    segments: list[int]
    num_segments: int
    sum: list[float]
    mean: list[float]
    max: list[float]
    argmax: list[int]


# x, segments, num_segments | sum, mean | max, argmax
TABLE = {
    "plain": Row([1, 5, 2, 4, -3, 0, 7, 6], [0, 0, 1, 1, 2, 2, 0, 1], 3,
                 [13, 12, -3], [13 / 3, 4, -1.5],
                 [7, 6, 0], [6, 7, 5]),
    "one segment": Row([1, 2, 3, 4, 4, 3, 2, 1], [0] * 8, 1,
                       [20], [2.5],
                       [4], [3]),
    "ties": Row([2, 2, 1, 1, 2, 1, 1, 2], [1, 0, 1, 0, 0, 1, 1, 1], 2,
                [5, 7], [5 / 3, 1.4],
                [2, 2], [1, 0]),
    "equal zeros": Row([-0.0, 0.0, 0.0, -0.0, -1, -1, -1, -1], [0, 0, 1, 1, 0, 0, 1, 1], 2,
                       [-2, -2], [-0.5, -0.5],
                       [-0.0, 0.0], [0, 2]),
    "all negative": Row([-4, -1, -2, -3, -8, -9, -7, -6], [0] * 4 + [1] * 4, 2,
                        [-10, -30], [-2.5, -7.5],
                        [-1, -6], [1, 7]),
    "voxel 0 is the maximum": Row([9, 1, 2, 3, 4, 5, 6, 7], [0] * 8, 1,
                                  [37], [4.625],
                                  [9], [0]),
    "gaps": Row([1, 2, 3, 4, 5, 6, 7, 8], [1] * 4 + [4] * 4, 6,
                [0, 10, 0, 0, 26, 0], [0, 2.5, 0, 0, 6.5, 0],
                [0, 4, 0, 0, 8, 0], [-1, 3, -1, -1, 7, -1]),
    "ignored voxels": Row([1, 99, 3, 99, 5, nan, inf, -2], [0, -1, 1, -1, 0, -1, -1, 1], 2,
                          [6, 1], [3, 0.5],
                          [5, 3], [4, 2]),
    "everything ignored": Row([1, 2, 3, 4, 5, 6, 7, nan], [-1] * 8, 2,
                              [0, 0], [0, 0],
                              [0, 0], [-1, -1]),
    "no segments": Row([1, 2, 3, 4, 5, 6, 7, 8], [-1] * 8, 0,
                       [], [],
                       [], []),
    "NaN first": Row([nan, 1, 2, nan, 3, 4, 5, 6], [0] * 4 + [1] * 4, 2,
                     [nan, 18], [nan, 4.5],
                     [nan, 6], [0, 7]),
    "NaN last": Row([1, 2, 7, nan, inf, 4, nan, nan], [0] * 4 + [1] * 4, 2,
                    [nan, nan], [nan, nan],
                    [nan, nan], [3, 6]),
    "only -inf": Row([-inf, 1, -inf, 2, -inf, 3, -inf, 4], [1, 0] * 4, 2,
                     [10, -inf], [2.5, -inf],
                     [4, -inf], [7, 0]),
    "inf": Row([inf, 1, 2, inf, -inf, 5, 5, inf], [0] * 4 + [1] * 4, 2,
               [inf, nan], [inf, nan],
               [inf, inf], [0, 7]),
}  # fmt: skip

UNPOOLED = {
    "plain": ([3, -1, nan], [0, 0, 1, 1, 2, 2, -1, 0], [3, 3, -1, -1, nan, nan, 0, 3]),
    "unused segments": ([5, 6, 7, 8], [3] * 4 + [0] * 4, [8] * 4 + [5] * 4),
    "everything ignored": ([nan, inf], [-1] * 8, [0] * 8),
}

CPU_BACKENDS = [name for name, backend in BACKENDS.items() if backend.refusal("cpu", torch.float32) is None]

each_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
each_space = pytest.mark.parametrize("space", [(2, 4), (2, 2, 2)], ids=str)


def assert_same(actual: torch.Tensor, values: list[float], dtype: torch.dtype) -> None:
    expected = torch.tensor(values, dtype=torch.float64).to(dtype).reshape(1, 1, -1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@each_backend
@each_dtype
@each_space
@pytest.mark.parametrize("name", list(TABLE))
def test_pool(name: str, space: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    row = TABLE[name]
    x = torch.tensor(row.x, dtype=dtype).reshape(1, 1, *space)
    segments = torch.tensor(row.segments, dtype=torch.int32).reshape(1, *space)
    maxima, argmax = segment_pool(x, segments, row.num_segments, return_argmax=True, backend=backend)
    assert_same(maxima, row.max, dtype)
    assert maxima.signbit().logical_and(maxima == 0).flatten().tolist() == [str(v) == "-0.0" for v in row.max]
    assert_same(argmax, row.argmax, torch.int64)
    for reduce, expected in (("sum", row.sum), ("mean", row.mean)):
        pooled = segment_pool(x, segments, row.num_segments, reduce=reduce, backend=backend)
        assert_same(pooled, expected, dtype)


@each_backend
@each_dtype
@each_space
@pytest.mark.parametrize("name", list(UNPOOLED))
def test_unpool(name: str, space: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    pooled, segments, voxels = UNPOOLED[name]
    values = torch.tensor(pooled, dtype=dtype).reshape(1, 1, -1)
    ids = torch.tensor(segments).reshape(1, *space)
    out = segment_unpool(values, ids, backend=backend)
    assert out.shape == (1, 1, *space)
    assert_same(out.reshape(1, 1, -1), voxels, dtype)
    on_base = segment_unpool(values, ids, torch.full_like(out, 0.5), backend=backend)
    torch.testing.assert_close(on_base, out + 0.5, rtol=0, atol=0, equal_nan=True)
