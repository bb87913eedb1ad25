from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxpool.errors import UsageError
from voxpool.ops import compact_segments, parents_of, segment_pool


@given(
    segments=hnp.arrays(
        st.sampled_from([np.int32, np.int64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
        elements=st.integers(-1, 30) | st.sampled_from([10**6, 2**31 - 1]),
    )
)
def test_ids_become_ranks(segments: np.ndarray) -> None:
    compacted, count = compact_segments(segments)
    present = sorted(set(segments.flatten().tolist()) - {-1})
    rank = {-1: -1} | {old: new for new, old in enumerate(present)}
    assert compacted.dtype == np.int32
    assert compacted.shape == segments.shape
    assert compacted.flatten().tolist() == [rank[old] for old in segments.flatten().tolist()]
    assert count == len(present)
    again, same = compact_segments(torch.from_numpy(np.asarray(segments)))
    assert again.dtype == torch.int32
    assert np.array_equal(again.numpy(), compacted)
    assert same == count


def test_a_crop_pools_the_same_after_compaction() -> None:
    torch.manual_seed(0)
    segments = torch.randint(-1, 500, (1, 8, 8), dtype=torch.int32)
    x = torch.randn(1, 2, 8, 8)
    compacted, count = compact_segments(segments, 500)
    assert 0 < count < 64
    loose = segment_pool(x, segments, 500)
    assert torch.equal(segment_pool(x, compacted, count), loose[..., segments[segments >= 0].unique()])


def test_the_input_is_left_alone() -> None:
    segments = np.array([5, -1, 3], np.int32)
    compact_segments(segments)
    assert segments.tolist() == [5, -1, 3]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_wrong_ids_and_dtypes_are_refused(kind: Callable[[list], Any]) -> None:
    with pytest.raises(UsageError, match=r"from -1 \(ignored\) to 3, got ids from 0 to 4"):
        compact_segments(kind([0, 4]), 4)
    with pytest.raises(UsageError, match=r"-1 \(ignored\) and above, got ids from -2 to 4"):
        compact_segments(kind([-2, 4]))
    for wrong in ([0.0, 1.0], [True, False]):
        with pytest.raises(UsageError, match=r"segments must be of an integer type, got .*(float|bool)"):
            compact_segments(kind(wrong))


def test_parents_are_the_coarse_segments_that_fine_ones_lie_in() -> None:
    fine = torch.tensor([[0, 0, 2], [3, -1, 2]], dtype=torch.int32)
    coarse = torch.tensor([[7, 7, 4], [7, -1, 4]], dtype=torch.int32)
    assert parents_of(fine, coarse, 5).tolist() == [1, -1, 0, 1, -1]
