"""A map made of blocks of two resolutions that torch's functions take for a tensor.

Convolutions, poolings, enlargements, batch norms and all that works element by element run block by block; what needs
the whole map (means over the image, unpooling, other norms) gets it put together, and its result is cut again.
Without a single block of full resolution a map is the half-resolution map: its shape says so, and a network on it
computes what it computes for the averaged image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from voxpool.layers.block_rules import WINDOW_RULES, of_some
from voxpool.ops.block_pad import BlockGrid, block_combine, block_pad, block_sample

Function = Callable[..., Any]


class Blocks:
    """A map (N, C, *S) of blocks.

    Args:
        high: Blocks of full resolution, (n, C, *B); anything where there are none.
        low: Blocks of half resolution, (m, C, *B / 2); anything where there are none.
        grid: Where they lie.

    Attributes:
        high: The same.
        low: The same.
        grid: The same.
    """

    def __init__(self, high: Tensor, low: Tensor, grid: BlockGrid) -> None:
        self.grid = grid
        # of a resolution without blocks only the number of channels and the sides matter: those of the other
        self.high = high if grid.num_high else low.new_zeros((0, low.shape[1], *(2 * size for size in low.shape[2:])))
        self.low = low if grid.num_low else high.new_zeros((0, high.shape[1], *(size // 2 for size in high.shape[2:])))

    @property
    def shape(self) -> torch.Size:
        """(N, C, *S) at the finest resolution that is there."""
        finest = self.high if self.grid.num_high else self.low
        sides = (g * s for g, s in zip(self.grid.shape, finest.shape[2:], strict=True))
        return torch.Size((self.grid.high.shape[0], finest.shape[1], *sides))

    @property
    def ndim(self) -> int:
        """Number of axes, of the images and channels too."""
        return self.high.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Of the elements."""
        return self.high.dtype

    @property
    def device(self) -> torch.device:
        """Where the elements lie."""
        return self.high.device

    @property
    def positions(self) -> int:
        """How many elements there are of one channel, of both resolutions."""
        return sum(each.numel() // max(1, each.shape[1]) for each in (self.high, self.low))

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def size(self, axis: int | None = None) -> Any:
        """The shape, or one axis of it."""
        return self.shape if axis is None else self.shape[axis]

    def dense(self, *, linear: bool = False) -> Tensor:
        """The map as a tensor; see `voxpool.ops.block_pad.block_combine`."""
        if not self.grid.num_high:
            # half resolution throughout: one block after another, nothing to enlarge
            every = BlockGrid(torch.ones_like(self.grid.high))
            return block_combine(self.low, self.low[:0], every)
        return block_combine(self.high, self.low, self.grid, linear=linear)

    def cut(self, x: Tensor) -> "Blocks | Tensor":
        """A tensor as blocks of this grid, or the tensor itself where it does not fit."""
        fits = x.ndim == self.ndim and x.is_floating_point() and x.shape[0] == self.grid.high.shape[0]
        if not fits or any(size % g for size, g in zip(x.shape[2:], self.grid.shape, strict=True)):
            return x
        if not self.grid.num_high:
            blocks, _ = block_sample(x, BlockGrid(torch.ones_like(self.grid.high)))
            return self.like(blocks, blocks)
        if self.grid.num_low and any(size // g % 2 for size, g in zip(x.shape[2:], self.grid.shape, strict=True)):
            return x
        return self.like(*block_sample(x, self.grid))

    def like(self, high: Tensor, low: Tensor) -> "Blocks":
        """Other blocks on the same grid."""
        return Blocks(high, low, self.grid)

    def each(self, function: Callable[[Tensor], Tensor]) -> "Blocks":
        """What a function makes of the blocks of either resolution; sizes of blocks may change."""
        return self.like(of_some(function, self.high), of_some(function, self.low))

    def padded(self, pad: Sequence[int], *, replicate: bool = False, value: float = 0.0) -> tuple[Tensor, Tensor]:
        """See `voxpool.ops.block_pad.block_pad`."""
        return block_pad(self.high, self.low, self.grid, pad, replicate=replicate, value=value)

    def __add__(self, other: Any) -> Any:
        """Sum with a map, a tensor or a number."""
        return _binary(torch.add, self, other)

    def __radd__(self, other: Any) -> Any:
        """Sum with a tensor or a number."""
        return _binary(torch.add, self, other)

    def __sub__(self, other: Any) -> Any:
        """Difference to a map, a tensor or a number."""
        return _binary(torch.sub, self, other)

    def __mul__(self, other: Any) -> Any:
        """Product with a map, a tensor or a number."""
        return _binary(torch.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        """Product with a tensor or a number."""
        return _binary(torch.mul, self, other)

    def __getitem__(self, key: Any) -> Any:
        """A part of the map; all of it stays blocks."""
        keys = key if isinstance(key, tuple) else (key,)
        if all(each == slice(None) or each == slice(None, size) for each, size in zip(keys, self.shape, strict=False)):
            return self
        return self.dense()[key]

    @classmethod
    def __torch_function__(
        cls, function: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What torch calls in place of its own functions; what no rule knows is done on the whole map."""
        options = dict(kwargs or {})
        rule = _RULES.get(function)
        found = rule(*args, **options) if rule else NotImplemented
        return _whole(function, args, options) if found is NotImplemented else found


def _whole(function: Function, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A function of the whole map, and its result cut again."""
    first: Blocks | None = None

    def dense(value: Any) -> Any:
        nonlocal first
        if isinstance(value, Blocks):
            first = first or value
            return value.dense()
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            return type(value)(dense(each) for each in value)
        return value

    found = function(*dense(args), **{name: dense(value) for name, value in options.items()})
    assert first is not None  # torch asks only where a map is among the arguments

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return first.cut(value)
        return tuple(cut(each) for each in value) if isinstance(value, tuple) else value

    return cut(found)


def _elementwise(function: Function) -> Function:
    def rule(x: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(x, Blocks) or any(isinstance(each, Blocks) for each in args):
            return NotImplemented
        return x.each(lambda blocks: function(blocks, *args, **options))

    return rule


def _binary(function: Function, x: Any, y: Any, **options: Any) -> Any:
    first = x if isinstance(x, Blocks) else y
    pair = [first.cut(each) if isinstance(each, Tensor) and each.shape == first.shape else each for each in (x, y)]

    def fits(each: Any) -> bool:
        return isinstance(each, (int, float)) or (
            isinstance(each, Blocks) and each.grid is first.grid and each.shape == first.shape
        )

    if not all(map(fits, pair)):
        return _whole(function, (x, y), options)
    high = [each.high if isinstance(each, Blocks) else each for each in pair]
    low = [each.low if isinstance(each, Blocks) else each for each in pair]
    return first.like(function(*high, **options), function(*low, **options))


def _two(function: Function) -> Function:
    return lambda x, y, **options: _binary(function, x, y, **options)


def _concatenate(maps: Sequence[Any], dim: int = 0) -> Any:
    first = next(each for each in maps if isinstance(each, Blocks))
    cut = [first.cut(each) if isinstance(each, Tensor) else each for each in maps]
    blocks = [each for each in cut if isinstance(each, Blocks) and each.shape[2:] == first.shape[2:]]
    if dim != 1 or len(blocks) < len(cut):
        return NotImplemented
    return first.like(torch.cat([each.high for each in blocks], 1), torch.cat([each.low for each in blocks], 1))


_ELEMENTWISE: tuple[Function, ...] = (
    functional.relu,
    torch.relu,
    torch.relu_,
    functional.relu6,
    functional.hardtanh,
    functional.leaky_relu,
    functional.elu,
    functional.gelu,
    functional.silu,
    functional.dropout,
    torch.prelu,
    torch.sigmoid,
    torch.tanh,
)

_RULES: dict[Function, Function] = {
    **{function: _elementwise(function) for function in _ELEMENTWISE},
    torch.add: _two(torch.add),
    torch.mul: _two(torch.mul),
    torch.Tensor.add: _two(torch.add),
    torch.Tensor.__add__: _two(torch.add),
    torch.Tensor.mul: _two(torch.mul),
    torch.Tensor.__mul__: _two(torch.mul),
    torch.cat: _concatenate,
    **WINDOW_RULES,
}
