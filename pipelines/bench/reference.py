"""What must come out, by scipy.ndimage in float64: a method is checked before it is timed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from voxpool.errors import VoxpoolError
from voxpool_pipelines.bench.cases import Inputs
from voxpool_pipelines.bench.methods import Method, Reduce

# Rounding to the dtype; float32 leaves room for peers that also add up in it.
_RELATIVE = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 1e-12}
_ABSOLUTE = 1e-6


class WrongResultError(VoxpoolError):
    """A method does not give what it should; its time would mean nothing."""


@dataclass(frozen=True)
class Reference:
    """Pooled values of the inputs.

    Attributes:
        maxima: (C, K).
        first: Where each maximum lies first, (C, K).
        means: (C, K), float64.
        counts: Voxels per segment, (K,).
    """

    maxima: np.ndarray
    first: np.ndarray
    means: np.ndarray
    counts: np.ndarray


def make_reference(inputs: Inputs) -> Reference:
    """Pool by scipy.ndimage, channel by channel, in float64.

    Args:
        inputs: What to pool.

    Returns:
        Maxima, their first positions, means, counts.
    """
    ids = inputs.ids.cpu().numpy()
    every = np.arange(inputs.num_segments)
    counts = np.bincount(ids, minlength=inputs.num_segments)
    maxima, first, means = [], [], []
    for channel in _channels(inputs.x):
        largest = np.asarray(ndimage.maximum(channel, ids, every))
        hits = np.flatnonzero(channel == largest[ids])
        places = np.full(inputs.num_segments, len(ids))
        np.minimum.at(places, ids[hits], hits)
        maxima.append(largest)
        first.append(places)
        means.append(np.asarray(ndimage.mean(channel, ids, every)))
    return Reference(np.array(maxima), np.array(first), np.array(means), counts)


def _channels(x: Tensor) -> Iterator[np.ndarray]:
    """Channels of a map (1, C, *S), flat, in float64; one at a time, to spare memory."""
    return (channel.double().cpu().numpy().reshape(-1) for channel in x[0])


def check_forward(method: Method, inputs: Inputs, reference: Reference) -> None:
    """Compare what a method pools with the reference.

    Raises:
        WrongResultError: If values or positions differ.
    """
    values, argmax = method.forward(inputs)
    found = values.double().cpu().numpy()
    rows = slice(0, method.channels)
    if method.reduce == "max":
        right = np.array_equal(found, reference.maxima[rows])
    else:
        right = _close(found, reference.means[rows], inputs.x.dtype)
    if not right:
        raise _wrong(method, "values")
    if argmax is not None and not np.array_equal(argmax.cpu().numpy(), reference.first[rows]):
        raise _wrong(method, "positions")


def check_gradient(method: Method, inputs: Inputs, reference: Reference) -> None:
    """Compare a method's gradient with the reference; nothing is compared where it has none.

    Raises:
        WrongResultError: If the gradient differs.
    """
    if method.gradient is None:
        return
    found = method.gradient(inputs)
    rows = found[0].flatten(1) if found.ndim > 2 else found  # (C, P)
    ids = inputs.ids.cpu().numpy()
    grads = inputs.grad[0].double().cpu().numpy()
    for row, grad, first in zip(rows, grads, reference.first, strict=True):
        given = row.double().cpu().numpy()
        if not _right_gradient(method.reduce, given, grad, first, ids, reference.counts, row.dtype):
            raise _wrong(method, "gradients")


def _right_gradient(
    reduce: Reduce,
    given: np.ndarray,
    grad: np.ndarray,
    first: np.ndarray,
    ids: np.ndarray,
    counts: np.ndarray,
    dtype: torch.dtype,
) -> bool:
    if reduce == "mean":
        return _close(given, (grad / counts)[ids], dtype)
    wanted = np.zeros(len(ids))
    wanted[first] = grad
    return np.array_equal(given, wanted)


def _close(found: np.ndarray, wanted: np.ndarray, dtype: torch.dtype) -> bool:
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=_RELATIVE[dtype], atol=_ABSOLUTE)


def _wrong(method: Method, what: str) -> WrongResultError:
    return WrongResultError(
        f"{method.name} gives wrong {what} for the {method.reduce}, so nothing was timed; please report it"
    )
