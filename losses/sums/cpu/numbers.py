"""Pointers, exponential and logarithm for compiled loops, such that LLVM makes vectors of them; importing needs Numba.

Float32 throughout: a constant of Python would be a float64 and turn the whole loop into one. The C library's ``expf``
and ``logf`` are calls of one value each, and a loop with a call in it is no vector loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_FLOAT, _INTEGER = ir.FloatType(), ir.IntType(32)


def _pointer_to(kind: Any) -> Any:
    """A function (address) that gives the address as a pointer to values of a type, read and written by index."""

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return pointer


uint8s, uint16s, int16s = _pointer_to(types.uint8), _pointer_to(types.uint16), _pointer_to(types.int16)
int32s, int64s = _pointer_to(types.int32), _pointer_to(types.int64)
floats, doubles = _pointer_to(types.float32), _pointer_to(types.float64)

FLOAT_BYTES, DOUBLE_BYTES = 4, 8
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
INFINITY = np.float32(np.inf)
# log 2 in two parts, the first with few bits, so that its multiples are exact.
LOG2_HIGH, LOG2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LOG2_E = np.float32(1.44269504088896341)
# Below it e^x is less than the smallest normal float32, 2^−126, and 2^k could not be made by `_power_of_two`.
LOWEST = np.float32(-88)
# Coefficients of the polynomials of Cephes, highest power first.
E0, E1, E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
E3, E4, E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
L0, L1, L2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
L3, L4, L5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
L6, L7, L8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)
# The bits of sqrt(1/2), and of 1 less those. Added to the bits of a value, their difference makes the exponent's field
# step at sqrt(2) times a power of two instead of at the power itself, so that the mantissa lies around 1, where the
# polynomial for log(1 + m) is good.
_ROOT_HALF = 0x3F3504F3
_TO_ONE = 0x3F800000 - _ROOT_HALF


@intrinsic
def _truncated(context: Any, value: Any) -> Any:
    """A float32 without its fraction, as int32. (Python's ``int`` would give an int64, for which AVX2 has no such
    instruction on vectors.)
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], _INTEGER)

    return types.int32(types.float32), generate


@intrinsic
def _power_of_two(context: Any, exponent: Any) -> Any:
    """2^exponent for −127 < exponent < 128; 0 for −127."""

    # A float32 is sign, 8 bits of exponent + 127, 23 bits of mantissa; with a mantissa of 0 it is the power itself.
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], ir.Constant(_INTEGER, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INTEGER, 23)), _FLOAT)

    return types.float32(types.int32), generate


def _centred(builder: Any, value: Any) -> Any:
    """The bits of a positive float32 so moved that the exponent steps where the mantissa is 2 sqrt(1/2)."""
    return builder.add(builder.bitcast(value, _INTEGER), ir.Constant(_INTEGER, _TO_ONE))


@intrinsic
def _exponent(context: Any, value: Any) -> Any:
    """The whole k for which value / 2^k lies between sqrt(1/2) and sqrt(2), as float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.lshr(_centred(builder, arguments[0]), ir.Constant(_INTEGER, 23))
        return builder.sitofp(builder.sub(biased, ir.Constant(_INTEGER, 127)), _FLOAT)

    return types.float32(types.float32), generate


@intrinsic
def _mantissa(context: Any, value: Any) -> Any:
    """value / 2^k, between sqrt(1/2) and sqrt(2)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.and_(_centred(builder, arguments[0]), ir.Constant(_INTEGER, 0x7FFFFF))
        return builder.bitcast(builder.add(bits, ir.Constant(_INTEGER, _ROOT_HALF)), _FLOAT)

    return types.float32(types.float32), generate


@intrinsic
def larger(context: Any, value: Any, other: Any) -> Any:
    """The larger of two float32; where one is NaN the other.

    ``m[i] = v if v > m[i] else m[i]`` would become a store under a mask, which takes AMD's processors 20 cycles.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _FLOAT])
        return builder.call(
            builder.module.declare_intrinsic("llvm.maxnum", [_FLOAT], kind), arguments, fastmath=("nnan",)
        )

    return types.float32(types.float32, types.float32), generate


@intrinsic
def from_bfloat16(context: Any, bits: Any) -> Any:
    """The float32 of a bfloat16 that is given as uint16: a bfloat16 is the upper half of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], _INTEGER)
        return builder.bitcast(builder.shl(wide, ir.Constant(_INTEGER, 16)), _FLOAT)

    return types.float32(types.uint16), generate


@intrinsic
def to_bfloat16(context: Any, value: Any) -> Any:
    """The nearest bfloat16, as uint16, of a float32 that is no NaN; of two equally near the even one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Adding half of the last place kept carries into it from a half on; one less where that place is even, so that
        # exactly a half is rounded to even.
        bits = builder.bitcast(arguments[0], _INTEGER)
        sixteen, one = ir.Constant(_INTEGER, 16), ir.Constant(_INTEGER, 1)
        odd = builder.and_(builder.lshr(bits, sixteen), one)
        rounded = builder.add(builder.add(bits, ir.Constant(_INTEGER, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, sixteen), ir.IntType(16))

    return types.uint16(types.float32), generate


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def exponential(x: Any) -> Any:
    """e^x of a float32 x ≤ 0 to two units in the last place; 0 below −87.7. (Cephes, expf.)"""
    x = x if x > LOWEST else LOWEST
    # e^x = 2^k e^r with |r| ≤ log 2 / 2. As x ≤ 0, x log2(e) − 1/2 truncated towards 0 is x log2(e) rounded.
    whole = _truncated(x * LOG2_E - HALF)
    k = np.float32(whole)
    r = x - k * LOG2_HIGH
    r = r - k * LOG2_LOW
    series = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    return (series * (r * r) + r + ONE) * _power_of_two(whole)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def logarithm(x: Any) -> Any:
    """log x of a positive normal float32 to two units in the last place. (Cephes, logf.)"""
    # log x = k log 2 + log(1 + m), 1 + m between sqrt(1/2) and sqrt(2); small parts are added first.
    k = _exponent(x)
    m = _mantissa(x) - ONE
    series = (((((((L0 * m + L1) * m + L2) * m + L3) * m + L4) * m + L5) * m + L6) * m + L7) * m + L8
    square = m * m
    small = series * (square * m) + k * LOG2_LOW - HALF * square
    return m + small + k * LOG2_HIGH
