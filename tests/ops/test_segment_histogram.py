"""Counts of classes in supervoxels against a plain loop."""

import pytest
import torch

from voxpool.errors import UsageError
from voxpool.ops.segment_histogram import _count, segment_histogram


@pytest.mark.parametrize("space", [(50,), (9, 8), (4, 5, 6)])
@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
def test_counts_are_those_of_a_loop(space: tuple[int, ...], ids: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, *space), generator=rng)
    segments = torch.randint(-1, 5, (2, *space), generator=rng, dtype=ids)
    segments[segments == 3] = 2  # an empty supervoxel
    counts = segment_histogram(target.to(torch.uint8), segments, 5, 4)
    assert counts.shape == (2, 4, 6)
    assert counts.dtype == torch.int64
    for n in range(2):
        for label in range(4):
            for column, k in enumerate([0, 1, 2, 3, 4, -1]):
                assert counts[n, label, column] == int(((target[n] == label) & (segments[n] == k)).sum())
    assert counts.sum() == target.numel()


def test_wrong_ids_and_classes_are_harmless_where_they_are_not_checked() -> None:
    segments = torch.tensor([[0, 1, 2, 1 << 40, -1, -7], [1, 1, 0, 0, 1, 1]])
    target = torch.tensor([[0, 1, 1, 1, 0, 0], [2, -1, 1 << 40, 0, 1, -(1 << 40)]])
    counts = _count(target, segments, 2, 2)
    assert counts.tolist() == [[[1, 0, 2], [0, 1, 2]], [[1, 0, 0], [0, 1, 0]]]


def test_nothing_to_count() -> None:
    empty = torch.zeros((2, 0), dtype=torch.int64)
    assert segment_histogram(empty, empty, 3, 2).tolist() == torch.zeros(2, 2, 4).tolist()
    none = torch.full((1, 4), -1)
    assert segment_histogram(torch.tensor([[0, 1, 1, 1]]), none, 0, 2).tolist() == [[[1], [3]]]


@pytest.mark.parametrize(
    ("target", "segments", "words"),
    [
        (torch.tensor([[0, 2]]), torch.tensor([[0, 1]]), "classes from 0 to num_classes - 1 = 1, got 0 to 2"),
        (torch.tensor([[-1, 0]]), torch.tensor([[0, 1]]), "got -1 to 0"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, 2]]), "num_segments - 1 = 1, got ids from 0 to 2"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, 1, 1]]), r"shape \(1, 2\), got \(1, 3\)"),
        (torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1]]), r"integer type, got torch.float32"),
        (torch.tensor([[False, True]]), torch.tensor([[0, 1]]), r"integer type, got torch.bool"),
    ],
)
def test_what_does_not_fit_is_named(target: torch.Tensor, segments: torch.Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        segment_histogram(target, segments, 2, 2)
