"""Every wrong argument gets one sentence that says what was wanted and what was found."""

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.ops import segment_pool, segment_unpool

X = torch.zeros(2, 3, 4, 5)
SEGMENTS = torch.zeros(2, 4, 5, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[:, :, 0, 0], SEGMENTS, 1), {}, "x must have shape (N, C, *spatial), got (2, 3)"),
        ((X, SEGMENTS[:, :3], 1), {}, "segments must have shape (2, 4, 5), got (2, 3, 5)"),
        ((X, SEGMENTS[0], 1), {}, "segments must have shape (2, 4, 5), got (4, 5)"),
        ((X, SEGMENTS.float(), 1), {}, "segments must be torch.int32 or torch.int64, got torch.float32"),
        ((X, SEGMENTS.to("meta"), 1), {}, "segments must be on cpu as the values are, got meta"),
        ((X.int(), SEGMENTS, 1), {}, "got torch.int32; use x.float()"),
        ((X, SEGMENTS, 1.0), {}, "num_segments must be a Python int, got float"),
        ((X, SEGMENTS, True), {}, "num_segments must be a Python int, got bool"),
        ((X, SEGMENTS, -1), {}, "num_segments must be 0 or more, got -1"),
        ((X, SEGMENTS, 0), {}, "to num_segments - 1 = -1, got ids from 0 to 0"),
        ((X, SEGMENTS, 1), {"reduce": "median"}, 'reduce must be "max", "mean" or "sum", got \'median\''),
        (
            (X, SEGMENTS, 1),
            {"reduce": "sum", "return_argmax": True},
            "return_argmax needs reduce=\"max\", got reduce='sum'",
        ),
        (
            (X, SEGMENTS, 1),
            {"backend": "numpy"},
            "backend must be one of numba, cupy, torch, ndimage or None, got 'numpy'",
        ),
    ],
)
def test_pool(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        segment_pool(*arguments, **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


POOLED = torch.zeros(2, 3, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, SEGMENTS), "pooled must have shape (N, C, K), got (2, 3, 4, 5)"),
        ((POOLED, SEGMENTS[0, 0]), "segments must have shape (N, *spatial), got (5,)"),
        ((POOLED, SEGMENTS[:1]), "segments must have shape (2, 4, 5), got (1, 4, 5)"),
        ((POOLED, SEGMENTS.short()), "segments must be torch.int32 or torch.int64, got torch.int16"),
        ((POOLED.long(), SEGMENTS), "got torch.int64; use pooled.float()"),
        ((POOLED, SEGMENTS, X[:, :1]), "base must have shape (2, 3, 4, 5), got (2, 1, 4, 5)"),
    ],
)
def test_unpool(arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        segment_unpool(*arguments)
    assert message in str(caught.value)
