"""The inner loops of SLIC as LLVM IR: which centre is nearest to each of 16 voxels, and the sums of its voxels.

What is used again and again stays in registers, which LLVM does not arrange by itself: written as loops, either the
voxels or the centres are read again from memory for every pair, and sums are added up one voxel at a time.

A voxel is its place and its features: int32 z << 20 | y << 10 | x, relative to a corner, and int32 multiples of 2^-16.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

WIDTH = 16
"""Voxels that are handled at a time."""

MOST = 1000
"""Voxels that `sum_where` can add up, none of them further than 9 from the corner: 10 bits for each axis."""

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_I32, WIDTH), ir.VectorType(_F32, WIDTH)
_BITS = 10


def _whole(value: int) -> Any:
    return ir.Constant(_INTS, [value] * WIDTH)


def _at(builder: Any, start: Any, index: Any, stride: Any) -> Any:
    """An address: numbers may be those of Python."""
    stride = stride if isinstance(stride, ir.Value) else ir.Constant(_I64, stride)
    index = index if isinstance(index, ir.Value) else ir.Constant(_I64, index)
    return builder.add(start, builder.mul(index, stride))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 4
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 4


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, WIDTH), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, _whole(0))


def _axes(builder: Any, places: Any) -> list[Any]:
    """The three coordinates that a place, or a sum of places, holds."""
    low = _whole((1 << _BITS) - 1)
    columns, rows = builder.and_(places, low), builder.and_(builder.lshr(places, _whole(_BITS)), low)
    return [builder.lshr(places, _whole(2 * _BITS)), rows, columns]


def _choose(builder: Any, channels: int, numbers: list[Any]) -> None:
    places, corner, features, channel_stride, centres, names, count, out = numbers
    axes = _axes(builder, _load(builder, places, _INTS))
    starts = [_splat(builder, _load(builder, _at(builder, corner, axis, 4), _I32)) for axis in range(3)]
    terms = [builder.add(axis, start) for axis, start in zip(axes, starts, strict=True)]
    terms += [_load(builder, _at(builder, features, c, channel_stride), _INTS) for c in range(channels)]
    voxel = [builder.sitofp(term, _FLOATS) for term in terms]
    best = cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, [float("inf")] * WIDTH))
    chosen = cgutils.alloca_once_value(builder, _whole(0))
    with cgutils.for_range(builder, count) as loop:
        row = _at(builder, centres, loop.index, 4 * (4 + channels))
        score = _splat(builder, _load(builder, row, _F32))
        # terms in a fixed order, each rounded: the same bits on every processor
        for term, values in enumerate(voxel, start=1):
            slope = _splat(builder, _load(builder, _at(builder, row, term, 4), _F32))
            score = builder.fadd(score, builder.fmul(slope, values))
        nearest = builder.load(best)
        nearer = builder.fcmp_ordered("<", score, nearest)
        name = _splat(builder, _load(builder, _at(builder, names, loop.index, 4), _I32))
        builder.store(builder.select(nearer, score, nearest), best)
        builder.store(builder.select(nearer, name, builder.load(chosen)), chosen)
    _store(builder, builder.load(chosen), out)


def _nearest(typing: Any, numbers: Any, channels: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _choose(builder, signature.args[1].count, cgutils.unpack_tuple(builder, args[0], signature.args[0].count))
        return context.get_dummy_value()

    return types.void(numbers, channels), generate


nearest: Any = intrinsic(_nearest)
"""`nearest(numbers, channels)` for compiled code: write the nearest centres of 16 voxels.

`channels` is a tuple as long as there are features. The numbers are addresses, and a stride in bytes: (places, corner
of int32, first feature, stride to the next one, centres, their names, their number, out). A centre is a row of
float32: the score at the origin, its slopes along three axes and along a step of each feature; names and out are
int32. The lowest score wins, the first of equals.
"""


def _add(builder: Any, channels: int, numbers: list[Any]) -> None:
    picked, name, places, features, channel_stride, size, out = numbers
    wanted = _splat(builder, builder.trunc(name, _I32))
    count = cgutils.alloca_once_value(builder, ir.Constant(_I64, 0))
    sums = [cgutils.alloca_once_value(builder, _whole(0)) for _ in range(1 + channels)]
    with cgutils.for_range(builder, size, intp=_I64) as loop:
        here = _at(builder, ir.Constant(_I64, 0), loop.index, 4 * WIDTH)
        at = builder.icmp_signed("==", _load(builder, builder.add(picked, here), _INTS), wanted)
        bits = builder.zext(builder.ctpop(builder.bitcast(at, _I16)), _I64)
        builder.store(builder.add(builder.load(count), bits), count)
        values = [builder.add(places, here)]
        values += [builder.add(_at(builder, features, c, channel_stride), here) for c in range(channels)]
        for value, total in zip(values, sums, strict=True):
            more = builder.select(at, _load(builder, value, _INTS), _whole(0))
            builder.store(builder.add(builder.load(total), more), total)
    kind = ir.FunctionType(_I32, [_INTS])
    reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{WIDTH}i32")
    totals = [*_axes(builder, builder.load(sums[0])), *(builder.load(total) for total in sums[1:])]
    _store(builder, builder.load(count), out)
    for number, total in enumerate(totals, start=1):
        _store(builder, builder.sext(builder.call(reduce, [total]), _I64), _at(builder, out, number, 8))


def _sum_where(typing: Any, numbers: Any, channels: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _add(builder, signature.args[1].count, cgutils.unpack_tuple(builder, args[0], signature.args[0].count))
        return context.get_dummy_value()

    return types.void(numbers, channels), generate


sum_where: Any = intrinsic(_sum_where)
"""`sum_where(numbers, channels)` for compiled code: add up the voxels that picked a centre.

The numbers: (picked centres as int32, a centre, places, first feature, stride to the next one, how many times 16
voxels, out). Written are int64: the number of voxels, the sums of three coordinates and of every feature.
"""
