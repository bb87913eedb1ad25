"""Vector code of the CPU kernels: a few voxels times a few channels at once, as LLVM IR that numba compiles.

Segment ids jump from voxel to voxel, so one channel alone cannot be reduced by vector instructions. Here a block
of W voxels times W channels is transposed in registers: then one vector holds W channels of ONE voxel, and is
combined with the accumulator row of its segment. LLVM lowers the vectors to what the processor has (AVX-512, AVX2,
NEON), without a C compiler.

Two facts are carried by types, so that each combination is compiled and cached on its own: the dtype of the map by
the element type of an array (half precision travels as its bits, bfloat16 as uint16 and float16 as int16), and the
width W by the length of the tuple `lanes`. Addresses and strides are in bytes; accumulator rows hold W lanes. Row 0
takes the ignored voxels (id -1), row 1 the segment `first` (None is 0), row 2 the next one and so on.
"""

# Vector code takes flat numbers, as many as it needs.
# ruff: noqa: PLR0917

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

_AHEAD = 512
"""Bytes between what is read and what is asked for: a tenth of the time less than without, from 256 to 2048 alike."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_STORED = {types.uint16: _I16, types.int16: _F16, types.float32: _F32, types.float64: _F64}
_BYTES = {types.uint16: 2, types.int16: 2, types.float32: 4, types.float64: 8}


class _Code:
    """The builder of one function with the element type and width that it is specialised for."""

    def __init__(self, builder: Any, element: Any, lanes: int) -> None:
        self.b = builder
        self.width = lanes
        self.stored = _STORED[element]
        self.bytes = _BYTES[element]
        self.bfloat = element == types.uint16
        self.number = _F64 if element == types.float64 else _F32
        self.row = ir.VectorType(self.number, lanes)

    def constant(self, value: int) -> Any:
        return ir.Constant(_I64, value)

    def at(self, address: Any, offset: Any) -> Any:
        return self.b.add(address, self.constant(offset) if isinstance(offset, int) else offset)

    def load(self, address: Any, kind: Any, align: int) -> Any:
        value = self.b.load(self.b.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def store(self, value: Any, address: Any, align: int, *, stream: bool = False) -> None:
        instruction = self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()))
        instruction.align = align
        if stream:
            instruction.set_metadata("nontemporal", self.b.module.add_metadata([ir.Constant(_I32, 1)]))

    def decode(self, stored: Any) -> Any:
        """Numbers of a vector of stored elements."""
        if self.bfloat:
            wide = ir.VectorType(_I32, self.width)
            high = self.b.shl(self.b.zext(stored, wide), self.splat(ir.Constant(_I32, 16)))
            return self.b.bitcast(high, self.row)
        return self.b.fpext(stored, self.row) if self.stored is _F16 else stored

    def encode(self, numbers: Any) -> Any:
        """Stored elements of a vector of numbers, rounded to nearest even."""
        if self.stored is _F16:
            return self.b.fptrunc(numbers, ir.VectorType(_F16, self.width))
        if not self.bfloat:
            return numbers
        bits = self.b.bitcast(numbers, ir.VectorType(_I32, self.width))
        sixteen, one, half = (self.splat(ir.Constant(_I32, value)) for value in (16, 1, 0x7FFF))
        odd = self.b.and_(self.b.lshr(bits, sixteen), one)
        rounded = self.b.lshr(self.b.add(bits, self.b.add(half, odd)), sixteen)
        is_nan = self.b.fcmp_unordered("uno", numbers, numbers)
        rounded = self.b.select(is_nan, self.splat(ir.Constant(_I32, 0x7FC0)), rounded)
        return self.b.trunc(rounded, ir.VectorType(_I16, self.width))

    def load_row(self, address: Any) -> Any:
        return self.decode(self.load(address, ir.VectorType(self.stored, self.width), self.bytes))

    def minimum(self, left: Any, right: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", left, right), left, right)

    def splat(self, value: Any) -> Any:
        undefined = ir.Constant(ir.VectorType(value.type, self.width), ir.Undefined)
        first = self.b.insert_element(undefined, value, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(first, undefined, self.mask([0] * self.width))

    def mask(self, indices: Sequence[int]) -> Any:
        vector = ir.VectorType(_I32, len(indices))
        return ir.Constant(vector, [ir.Constant(_I32, index) for index in indices])

    def transpose(self, rows: list[Any]) -> list[Any]:
        """Exchange rows and lanes of W vectors: blocks of 1, 2, 4, ... are swapped between rows."""
        step = 1
        while step < self.width:
            lanes = range(self.width)
            low = self.mask([lane if not lane & step else self.width + lane - step for lane in lanes])
            high = self.mask([lane + step if not lane & step else self.width + lane for lane in lanes])
            swapped = list(rows)
            for row in lanes:
                if not row & step:
                    pair = rows[row], rows[row + step]
                    swapped[row] = self.b.shuffle_vector(*pair, low)
                    swapped[row + step] = self.b.shuffle_vector(*pair, high)
            rows = swapped
            step *= 2
        return rows

    def slot(self, ids: Any, voxel: int, first: Any) -> Any:
        """Row number of a voxel's accumulator: 0 for the id -1, else 1 more than the id lies above the first.

        Where the first is known to be 0 (None) that is one addition.
        """
        number = self.b.sext(self.load(self.at(ids, 4 * voxel), _I32, 4), _I64)
        if first is None:
            return self.b.add(number, self.constant(1))
        row = self.b.sub(number, self.b.sub(first, self.constant(1)))
        return self.b.select(self.b.icmp_signed("<", number, self.constant(0)), self.constant(0), row)

    def row_address(self, table: Any, slot: Any, lane_bytes: int) -> Any:
        return self.at(table, self.b.mul(slot, self.constant(self.width * lane_bytes)))

    def channel_addresses(self, address: Any, stride: Any, last: Any) -> list[Any]:
        """Where the W channels start; those past number `last` repeat it."""
        return [
            self.at(address, self.b.mul(self.minimum(self.constant(lane), last), stride)) for lane in range(self.width)
        ]

    def voxel_rows(self, address: Any, stride: Any, last: Any) -> list[Any]:
        """Load W channels of W voxels; one vector per voxel.

        As many streams as channels are more than the processor foresees by itself.
        """
        starts = self.channel_addresses(address, stride, last)
        for start in starts:
            self.prefetch(self.at(start, _AHEAD))
        return self.transpose([self.load_row(start) for start in starts])

    def prefetch(self, address: Any) -> None:
        """Ask for a line that will be read soon; an address outside the map does no harm."""
        pointer = _I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0i8")
        read, all_caches, data = 0, 3, 1
        options = [ir.Constant(_I32, option) for option in (read, all_caches, data)]
        self.b.call(function, [self.b.inttoptr(address, pointer), *options])

    def keep_maximum(self, row: Any, slot: Any, best: Any, where: Any, index: Any) -> None:
        """Let best be max(best, row); where it grew the position is `index`.

        A NaN replaces every number and is replaced by nothing; an equal value replaces nothing.
        """
        size = 8 if self.number is _F64 else 4
        place = self.row_address(best, slot, size)
        old = self.load(place, self.row, size)
        grows = self.b.and_(self.b.fcmp_unordered(">", row, old), self.b.fcmp_ordered("ord", old, old))
        bits = ir.IntType(self.width)
        with self.b.if_then(
            self.b.icmp_unsigned("!=", self.b.bitcast(grows, bits), ir.Constant(bits, 0)), likely=False
        ):
            self.store(self.b.select(grows, row, old), place, size)
            place = self.row_address(where, slot, 4)
            positions = self.load(place, ir.VectorType(_I32, self.width), 4)
            index = self.splat(self.b.trunc(index, _I32))
            self.store(self.b.select(grows, index, positions), place, 4)

    def add_to_total(self, row: Any, slot: Any, totals: Any) -> None:
        wide = ir.VectorType(_F64, self.width)
        place = self.row_address(totals, slot, 8)
        value = row if self.number is _F64 else self.b.fpext(row, wide)
        self.store(self.b.fadd(self.load(place, wide, 8), value), place, 8)


def _intrinsic(write: Callable[..., None]) -> Any:
    """Make a function for compiled code: `f(like, numbers, lanes)` with `numbers` a tuple of integers and None."""

    @intrinsic
    def inlined(typing: Any, like: Any, numbers: Any, lanes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = _Code(builder, signature.args[0].dtype, signature.args[2].count)
            values = cgutils.unpack_tuple(builder, args[1], len(signature.args[1]))
            kinds = signature.args[1].types
            write(code, *(None if kind == types.none else v for v, kind in zip(values, kinds, strict=True)))
            return context.get_dummy_value()

        return types.void(like, numbers, lanes), generate

    return inlined


def _max_block(
    code: _Code, x: Any, stride: Any, last: Any, ids: Any, first: Any, best: Any, where: Any, index: Any
) -> None:
    for voxel, row in enumerate(code.voxel_rows(x, stride, last)):
        code.keep_maximum(row, code.slot(ids, voxel, first), best, where, code.at(index, voxel))


def _max_voxel(code: _Code, x: Any, ids: Any, first: Any, best: Any, where: Any, index: Any) -> None:
    code.keep_maximum(code.load_row(x), code.slot(ids, 0, first), best, where, index)


def _sum_block(code: _Code, x: Any, stride: Any, last: Any, ids: Any, first: Any, totals: Any) -> None:
    for voxel, row in enumerate(code.voxel_rows(x, stride, last)):
        code.add_to_total(row, code.slot(ids, voxel, first), totals)


def _sum_voxel(code: _Code, x: Any, ids: Any, first: Any, totals: Any) -> None:
    code.add_to_total(code.load_row(x), code.slot(ids, 0, first), totals)


def _unpool_block(
    code: _Code, out: Any, stride: Any, ids: Any, first: Any, table: Any, base: Any = None, *, stream: bool
) -> None:
    size = 8 if code.number is _F64 else 4
    slots = [code.slot(ids, voxel, first) for voxel in range(code.width)]
    rows = [code.load(code.row_address(table, slot, size), code.row, size) for slot in slots]
    for lane, pooled in enumerate(code.transpose(rows)):
        offset = code.b.mul(code.constant(lane), stride)
        row = pooled if base is None else code.b.fadd(code.load_row(code.at(base, offset)), pooled)
        code.store(code.encode(row), code.at(out, offset), 64 if stream else code.bytes, stream=stream)


def _unpool_voxel(code: _Code, out: Any, ids: Any, first: Any, table: Any, base: Any = None) -> None:
    size = 8 if code.number is _F64 else 4
    row = code.load(code.row_address(table, code.slot(ids, 0, first), size), code.row, size)
    if base is not None:
        row = code.b.fadd(code.load_row(base), row)
    code.store(code.encode(row), out, code.bytes)


max_block = _intrinsic(_max_block)
"""(x, stride, last, ids, first, best, where, index): W voxels from `index`, channels `stride` apart up to `last`."""
max_voxel = _intrinsic(_max_voxel)
"""(x, ids, first, best, where, index): one voxel whose W channels lie together."""
sum_block = _intrinsic(_sum_block)
"""(x, stride, last, ids, first, totals): as `max_block`, into float64 totals."""
sum_voxel = _intrinsic(_sum_voxel)
"""(x, ids, first, totals): as `max_voxel`, into float64 totals."""
unpool_block = _intrinsic(partial(_unpool_block, stream=False))
"""(out, stride, ids, first, table[, base]): W voxels of W channels from rows of the table, plus `base` if given."""
stream_block = _intrinsic(partial(_unpool_block, stream=True))
"""As `unpool_block` past the caches; every channel's address must be a multiple of 64."""
unpool_voxel = _intrinsic(_unpool_voxel)
"""(out, ids, first, table[, base]): write one voxel whose W channels lie together."""
