"""Instructions on vectors of eight float32, and the functions of addresses that are made of them.

They are written as LLVM instructions and not as loops that LLVM might make vectors of: sums then stay in registers, and
the order of every sum, so its rounding, is fixed. What is named in the past tense here (`added`, `multiplied`) appends
an instruction and gives its result; `function` makes of such code a function that compiled code calls, and that is
inlined.

Addresses are int64 and count bytes; they need not be aligned. Compiled by Numba; importing this module without Numba
raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import unpack_tuple
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from rarevox.networks.cpu.instructions import sizes
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, VECTOR_BYTES

FLOAT, INTEGER = ir.FloatType(), ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
MASK = ir.VectorType(INTEGER, LANES)

# Whether Numba compiles for registers of sixteen float32, and 32 of them. Compiled code is kept by CPU and features, so
# that what depends on this is never taken for another one's.
WIDE = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]

in_eights = njit(nogil=True, error_model="numpy")(sizes.in_eights)


def function(code: Callable[..., None]) -> Any:
    """A function of addresses, for compiled code to call, that does ``code(builder, *addresses)``.

    Numba writes the instructions of an intrinsic in place of the call.
    """

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
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=FLOAT_BYTES)


def store_at(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=FLOAT_BYTES)


def stream_at(builder: Any, value: Any, address: Any) -> None:
    """A non-temporal store of a vector, at an address that is a multiple of 32.

    It goes to memory past the caches, so that the line is not read from memory first, as a plain store does. The line
    should be written in one go: what a processor has gathered of it goes out in parts otherwise.
    """
    store = builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=VECTOR_BYTES)
    store.set_metadata("nontemporal", builder.module.add_metadata([INTEGER(1)]))


def constant(value: float) -> Any:
    """A vector of one number."""
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(value)))] * LANES)


# "contract" lets LLVM make one fused multiply-add of a sum and a product in it, and nothing else: sums keep their
# order. Which of two products is fused is LLVM's choice, the same for the same code and processor.
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
    return [load_at(builder, builder.add(address, address.type(VECTOR_BYTES * k))) for k in range(count)]


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
# (source, target, mask): copy the bits of source that are set in the vector of the mask. A product with zeros would not
# do: behind the last channel there may be what is not a number.
copy_masked = function(_masked)
# (source, target, other): target = source + other.
add_vectors = function(_summed)
add_floats = function(_summed_floats)


def _prefetched(builder: Any, address: Any) -> None:
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type] + [INTEGER] * 3)
    ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    read, into_second_level, data = INTEGER(0), INTEGER(2), INTEGER(1)
    builder.call(ask, [pointer, read, into_second_level, data])


# (address): prefetch its line of the cache. The address may lie anywhere: what cannot be read is not.
prefetch = function(_prefetched)
