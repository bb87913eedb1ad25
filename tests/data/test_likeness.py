"""What is no MRI of a head is told from what is."""

import numpy as np
import pytest

from voxpool.data.likeness import unlike_head_mri
from voxpool.io import Geometry, Volume


def _volume(array: np.ndarray, mm: float = 4.0) -> Volume:
    return Volume(array.astype(np.float32), Geometry(array.shape, np.diag([mm, mm, mm, 1])))


def _head() -> np.ndarray:
    rng = np.random.default_rng(0)
    array = np.zeros((44, 52, 44))
    array[8:-8, 8:-8, 8:-8] = rng.uniform(20, 900, (28, 36, 28))
    return array


def test_a_head_passes() -> None:
    assert unlike_head_mri(_volume(_head())) == ()


def test_a_few_negative_values_of_interpolation_pass() -> None:
    head = _head()
    head[0, :, :] = -3
    assert unlike_head_mri(_volume(head)) == ()


@pytest.mark.parametrize(
    ("array", "mm", "words"),
    [
        (_head(), 1.0, "spans 44 x 52 x 44 mm"),
        (_head(), 10.0, "spans 440 x 520 x 440 mm"),
        (np.round(_head() / 300), 4.0, "4 different values only"),
        (_head() * 2 - 1000, 4.0, "Hounsfield"),
        (np.random.default_rng(1).normal(0, 3, (44, 52, 44)), 4.0, "negative, like those of a statistics map"),
    ],
)
def test_what_is_none_is_named(array: np.ndarray, mm: float, words: str) -> None:
    (reason,) = unlike_head_mri(_volume(array, mm))
    assert words in reason
