"""slic: progress, and an end when it is asked for."""

import numpy as np
import pytest

from voxpool.supervoxels import slic


def test_progress_rises_to_one() -> None:
    seen: list[float] = []
    slic(np.random.default_rng(0).random((16, 16, 16)), 27, max_num_iter=5, progress=seen.append)
    assert seen[-1] == 1
    runs = np.split(seen, np.flatnonzero(np.diff(seen) < 0) + 1)
    assert all((np.diff(run) > 0).all() for run in runs)
    assert len(runs[0]) >= 5


def test_what_progress_raises_ends_the_work_and_later_calls_are_whole() -> None:
    image = np.random.default_rng(0).random((24, 24, 24))
    done: list[float] = []

    def stop(share: float) -> None:
        done.append(share)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slic(image, 60, progress=stop)
    assert len(done) == 3
    np.testing.assert_array_equal(slic(image, 60), slic(image, 60, progress=lambda share: None))
