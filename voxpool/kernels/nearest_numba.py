"""The inner loop of SLIC as LLVM IR: which of some centres is nearest to each of 16 voxels.

The voxels' offsets and features stay in registers while all centres pass by, which LLVM does not arrange by itself:
written as loops, either the voxels or the centres are read again from memory for every pair.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic

WIDTH = 16
"""Voxels that one call of `nearest` takes."""

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_NUMBERS, _IDS = ir.VectorType(_F32, WIDTH), ir.VectorType(_I32, WIDTH)


def _load(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    value.align = 2 if element == ir.IntType(16) else 4
    return value


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, WIDTH), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_IDS, [0] * WIDTH))


def _code(builder: Any, offset_bits: int, channels: int, numbers: list[Any]) -> None:
    offsets, axis_stride, features, channel_stride, centres, ids, count, own, out = numbers

    def address(start: Any, index: Any, stride: Any) -> Any:
        stride = stride if isinstance(stride, ir.Value) else ir.Constant(_I64, stride)
        index = index if isinstance(index, ir.Value) else ir.Constant(_I64, index)
        return builder.add(start, builder.mul(index, stride))

    stored = ir.VectorType(ir.IntType(offset_bits), WIDTH)
    voxel = [builder.sitofp(_load(builder, address(offsets, axis, axis_stride), stored), _NUMBERS) for axis in range(3)]
    voxel += [_load(builder, address(features, c, channel_stride), _NUMBERS) for c in range(channels)]
    best = cgutils.alloca_once_value(builder, ir.Constant(_NUMBERS, [float("inf")] * WIDTH))
    chosen = cgutils.alloca_once_value(builder, _splat(builder, builder.trunc(own, _I32)))
    with cgutils.for_range(builder, count) as loop:
        row = address(centres, loop.index, 4 * (4 + channels))
        score = _splat(builder, _load(builder, row, _F32))
        # terms in a fixed order, each rounded: the same bits on every processor
        for term, values in enumerate(voxel, start=1):
            slope = _splat(builder, _load(builder, address(row, term, 4), _F32))
            score = builder.fadd(score, builder.fmul(slope, values))
        nearest = builder.load(best)
        nearer = builder.fcmp_ordered("<", score, nearest)
        number = _splat(builder, _load(builder, address(ids, loop.index, 4), _I32))
        builder.store(builder.select(nearer, score, nearest), best)
        builder.store(builder.select(nearer, number, builder.load(chosen)), chosen)
    written = builder.store(builder.load(chosen), builder.inttoptr(out, _IDS.as_pointer()))
    written.align = 4


def _nearest(typing: Any, like: Any, numbers: Any, channels: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = signature.args[0].dtype.bitwidth
        values = cgutils.unpack_tuple(builder, args[1], signature.args[1].count)
        _code(builder, width, signature.args[2].count, list(values))
        return context.get_dummy_value()

    return types.void(like, numbers, channels), generate


nearest: Any = intrinsic(_nearest)
"""`nearest(offsets, numbers, channels)` for compiled code: write the nearest centres of 16 voxels.

`offsets` is an array whose dtype is that of the offsets, int16 or int32; `channels` a tuple as long as there are
features. The numbers are addresses, and strides in bytes: (offsets of the first axis, stride to the next axis,
first feature, stride to the next one, centres, their ids, their number, id where none is near, out). A centre is a
row of float32: the score at the origin, its slopes along three axes and along the features; ids and out are int32.
The lowest score wins, the first of equals.
"""
