"""Instructions on vectors of eight float32, and the functions of addresses that are made of them.

Addresses are int64 and count bytes; they need not be aligned. Compiled by Numba; importing this module without Numba
raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

LANES = 8
BYTES = 4 * LANES
FLOAT, INTEGER = ir.FloatType(), ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
MASK = ir.VectorType(INTEGER, LANES)


def function(code: Callable[..., None]) -> Any:
    """A function of addresses, for compiled code to call, that does ``code(builder, *addresses)``."""

    @intrinsic
    def apply(context: Any, *addresses: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code(builder, *unpack_tuple(builder, arguments[0]))
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, len(addresses))), generate

    return apply


def stepped(builder: Any, base: Any, step: Any, count: int) -> Any:
    """The address ``count`` steps after ``base``."""
    return builder.add(base, builder.mul(step, ir.Constant(step.type, count)))


def load_at(builder: Any, address: Any, kind: Any = VECTOR) -> Any:
    """The value of a type at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def store_at(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def stream_at(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address, a multiple of 32, past the caches; whole lines of them should be written at once."""
    store = builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=BYTES)
    store.set_metadata("nontemporal", builder.module.add_metadata([INTEGER(1)]))


def constant(value: float) -> Any:
    """A vector of one number."""
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(value)))] * LANES)


def added(builder: Any, a: Any, b: Any) -> Any:
    """a + b, in one instruction with a product that it is made of."""
    return builder.fadd(a, b, flags=("contract",))


def subtracted(builder: Any, a: Any, b: Any) -> Any:
    """a − b, in the same way."""
    return builder.fsub(a, b, flags=("contract",))


def multiplied(builder: Any, a: Any, b: Any) -> Any:
    """a · b."""
    return builder.fmul(a, b, flags=("contract",))


def activated(builder: Any, vector: Any, slope: Any) -> Any:
    """Vector where it is positive, vector · slope elsewhere."""
    positive = builder.fcmp_ordered(">", vector, constant(0.0))
    return builder.select(positive, vector, multiplied(builder, vector, slope))


def vectors_at(builder: Any, address: Any, count: int) -> list[Any]:
    """So many vectors from an address on."""
    return [load_at(builder, builder.add(address, address.type(BYTES * k))) for k in range(count)]


def _copied(builder: Any, source: Any, target: Any) -> None:
    store_at(builder, load_at(builder, source), target)


def _copied_float(builder: Any, source: Any, target: Any) -> None:
    store_at(builder, load_at(builder, source, FLOAT), target)


def _masked(builder: Any, source: Any, target: Any, mask: Any) -> None:
    store_at(builder, builder.and_(load_at(builder, source, MASK), load_at(builder, mask, MASK)), target)


def _summed(builder: Any, source: Any, target: Any, other: Any) -> None:
    store_at(builder, added(builder, load_at(builder, source), load_at(builder, other)), target)


def _summed_floats(builder: Any, source: Any, target: Any, other: Any) -> None:
    total = added(builder, load_at(builder, source, FLOAT), load_at(builder, other, FLOAT))
    store_at(builder, total, target)


# (source, target): copy.
copy_vector = function(_copied)
copy_float = function(_copied_float)
# (source, target, mask): copy the bits of source that are set in the vector of the mask.
copy_masked = function(_masked)
# (source, target, other): target = source + other.
add_vectors = function(_summed)
add_floats = function(_summed_floats)


def _asked(write: int) -> Callable[..., None]:
    """Code that asks for a line of the cache to read or to ``write``."""

    def code(builder: Any, address: Any) -> None:
        pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type] + [INTEGER] * 3)
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(ask, [pointer, INTEGER(write), INTEGER(2), INTEGER(1)])

    return code


# (address): ask for its line of the cache, which may lie anywhere, ahead of time.
prefetch, prefetch_to_write = function(_asked(0)), function(_asked(1))
