"""Instructions on vectors of eight float32: small matrices, products, activations, sums over the voxels.

Addresses are int64 and count bytes; they need not be aligned. Compiled by Numba; importing this module without Numba
raises ImportError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
BYTES = 4 * LANES
_FLOAT, _INTEGER = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(_INTEGER, LANES)
_ADDRESS = types.int64


def _offset(builder: Any, base: Any, step: Any, count: int) -> Any:
    """The address ``count`` steps after ``base``."""
    return builder.add(base, builder.mul(step, ir.Constant(step.type, count)))


def _load_at(builder: Any, address: Any, kind: Any = _VECTOR) -> Any:
    """The value of a type at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _store_at(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _constant(value: float) -> Any:
    """A vector of one number."""
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(value)))] * LANES)


def _added(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b, flags=("contract",))


def _multiplied(builder: Any, a: Any, b: Any) -> Any:
    return builder.fmul(a, b, flags=("contract",))


def _sum(builder: Any, row: np.ndarray, vectors: list[Any]) -> Any:
    """Σ row[k] · vectors[k] as instructions, None if every factor is zero; zeros and ones cost nothing."""
    total = None
    for factor, vector in zip(row, vectors, strict=True):
        if factor == 0:
            continue
        term = vector if factor == 1 else _multiplied(builder, vector, _constant(factor))
        total = term if total is None else _added(builder, total, term)
    return total


def _twin(lines: np.ndarray, i: int) -> int | None:
    """The first line after ``i`` that differs from it in signs alone."""
    return next((j for j in range(i + 1, len(lines)) if np.array_equal(np.abs(lines[i]), np.abs(lines[j]))), None)


def _applied(builder: Any, matrix: np.ndarray, vectors: list[Any]) -> list[Any]:
    """``matrix`` · vectors. Rows or columns that differ in signs alone share their sums and differences."""
    for i in range(matrix.shape[1]):
        j = _twin(matrix.T, i)
        if j is not None:
            same = matrix[:, i] == matrix[:, j]
            columns = matrix[:, i] * same, matrix[:, i] * ~same
            pair = _added(builder, vectors[i], vectors[j]), builder.fsub(vectors[i], vectors[j], flags=("contract",))
            rest = [k for k in range(matrix.shape[1]) if k not in (i, j)]
            return _applied(
                builder, np.column_stack([matrix[:, rest], *columns]), [vectors[k] for k in rest] + list(pair)
            )
    results: list[Any] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if results[i] is not None:
            continue
        j = _twin(matrix, i)
        if j is None:
            results[i] = _sum(builder, row, vectors)
            continue
        same = row == matrix[j]
        even, odd = _sum(builder, row * same, vectors), _sum(builder, row * ~same, vectors)
        results[i] = _added(builder, even, odd)
        results[j] = builder.fsub(even, odd, flags=("contract",))
    return results


def _activated(builder: Any, vector: Any, slope: Any) -> Any:
    """Vector where it is positive, vector · slope elsewhere."""
    positive = builder.fcmp_ordered(">", vector, _constant(0.0))
    return builder.select(positive, vector, _multiplied(builder, vector, slope))


def _row(builder: Any, address: Any, count: int) -> list[Any]:
    """So many vectors from an address on."""
    return [_load_at(builder, builder.add(address, address.type(BYTES * k))) for k in range(count)]


def linear_map(matrix: np.ndarray, *, normed: bool = False) -> Any:
    """A function (source, source step, target, target step): matrix · the vectors at source, to target.

    With ``normed`` it takes one address more, of three vectors, scale, shift and slope: every vector v of the source
    enters as a = v · scale + shift where that is positive, a · slope elsewhere.
    """

    def code(builder: Any, base: Any, step: Any, out: Any, out_step: Any, norm: Any = None) -> None:
        vectors = [_load_at(builder, _offset(builder, base, step, k)) for k in range(matrix.shape[1])]
        if norm is not None:
            scale, shift, slope = _row(builder, norm, 3)
            vectors = [_added(builder, _multiplied(builder, v, scale), shift) for v in vectors]
            vectors = [_activated(builder, v, slope) for v in vectors]
        for k, result in enumerate(_applied(builder, matrix, vectors)):
            _store_at(builder, result, _offset(builder, out, out_step, k))

    if normed:

        @intrinsic
        def apply(context: Any, source: Any, source_step: Any, target: Any, target_step: Any, norm: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                code(builder, *arguments)
                return context.get_dummy_value()

            return types.void(*(_ADDRESS,) * 5), generate

    else:

        @intrinsic
        def apply(context: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                code(builder, *arguments)
                return context.get_dummy_value()

            return types.void(*(_ADDRESS,) * 4), generate

    return apply


def _moved(code: Any) -> Any:
    """A function (source, target, third address) of one vector, by ``code(builder, *addresses)``."""

    @intrinsic
    def apply(context: Any, source: Any, target: Any, third: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code(builder, *arguments)
            return context.get_dummy_value()

        return types.void(_ADDRESS, _ADDRESS, _ADDRESS), generate

    return apply


def _masked(builder: Any, source: Any, target: Any, mask: Any) -> None:
    bits = builder.and_(_load_at(builder, source, _MASK), _load_at(builder, mask, _MASK))
    _store_at(builder, bits, target)


def _summed(builder: Any, source: Any, target: Any, other: Any) -> None:
    _store_at(builder, _added(builder, _load_at(builder, source), _load_at(builder, other)), target)


def _biased(builder: Any, source: Any, target: Any, pair: Any) -> None:
    bias, slope = _row(builder, pair, 2)
    _store_at(builder, _activated(builder, _added(builder, _load_at(builder, source), bias), slope), target)


def _float(builder: Any, source: Any, target: Any, third: Any) -> None:
    _store_at(builder, _load_at(builder, source, _FLOAT), target)


def _float_sum(builder: Any, source: Any, target: Any, other: Any) -> None:
    total = _added(builder, _load_at(builder, source, _FLOAT), _load_at(builder, other, _FLOAT))
    _store_at(builder, total, target)


# target = source, and the third address is not read.
copy_vector = _moved(lambda builder, source, target, third: _store_at(builder, _load_at(builder, source), target))
copy_float = _moved(_float)
# target = the bits of source that are set in the third vector.
copy_masked = _moved(_masked)
# target = source + other.
add_vectors = _moved(_summed)
add_floats = _moved(_float_sum)
# target = activation of source + bias; bias and slope are the vectors at the third address.
add_bias = _moved(_biased)


def _prefetch(write: int) -> Any:
    """A function (address) that asks for the line of the cache at an address, which may lie anywhere, ahead of time."""

    @intrinsic
    def ask(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [pointer.type] + [_INTEGER] * 3)
            function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
            builder.call(function, [pointer, _INTEGER(write), _INTEGER(2), _INTEGER(1)])
            return context.get_dummy_value()

        return types.void(_ADDRESS), generate

    return ask


prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)


def product(rows: int, vectors: int, *, add: bool = False) -> Any:
    """A function (a, a row, a step, b, b step, c, c row, depth): c = Σ a b, or with ``add`` c += Σ a b.

    ``rows`` rows and ``vectors`` · 8 columns of c; the sums stay in registers over the whole depth, for each step of
    which one number of every row of a meets the vectors of b.
    """
    scalar = ir.Constant(_VECTOR, ir.Undefined)
    first_lane = ir.Constant(_MASK, [0] * LANES)
    places = [divmod(index, vectors) for index in range(rows * vectors)]

    @intrinsic
    def apply(
        context: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any, depth: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a_row, a_step, b, b_step, c, c_row, depth = arguments
            before = builder.block
            lines = [_offset(builder, a, a_row, i) for i in range(rows)]
            outs = [builder.add(_offset(builder, c, c_row, row), c.type(BYTES * v)) for row, v in places]
            starts = [_load_at(builder, out) if add else _constant(0.0) for out in outs]
            loop, after = builder.append_basic_block("depth"), builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            step, right, shift = builder.phi(depth.type), builder.phi(b.type), builder.phi(a_step.type)
            step.add_incoming(depth.type(0), before)
            right.add_incoming(b, before)
            shift.add_incoming(a_step.type(0), before)
            sums = [builder.phi(_VECTOR) for _ in places]
            columns = [_load_at(builder, builder.add(right, b.type(BYTES * v))) for v in range(vectors)]
            results: list[Any] = []
            for line in lines:
                value = _load_at(builder, builder.add(line, shift), _FLOAT)
                lane = builder.insert_element(scalar, value, _INTEGER(0))
                spread = builder.shuffle_vector(lane, scalar, first_lane)
                for column in columns:
                    results.append(_added(builder, sums[len(results)], _multiplied(builder, spread, column)))
            following = builder.add(step, depth.type(1))
            step.add_incoming(following, loop)
            right.add_incoming(builder.add(right, b_step), loop)
            shift.add_incoming(builder.add(shift, a_step), loop)
            for total, start, value in zip(sums, starts, results, strict=True):
                total.add_incoming(start, before)
                total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for out, value in zip(outs, results, strict=True):
                _store_at(builder, value, out)
            return context.get_dummy_value()

        return types.void(*(_ADDRESS,) * 8), generate

    return apply


def over_voxels(code: Any, parameters: int, sums: int, *, unroll: int) -> Any:
    """A function (x, g, step, count, parameter address, out): goes over voxels, ``step`` bytes apart, with one vector.

    Args:
        code: ``code(builder, parameter vectors, address in x, address in g)`` gives the terms of the sums.
        parameters: vectors at the parameter address.
        sums: vectors that are added up over all voxels and added to those at ``out``.
        unroll: voxels for each turn of the loop, of which ``count`` is a multiple.
    """

    @intrinsic
    def apply(context: Any, x: Any, g: Any, step: Any, count: Any, table: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, g, step, count, table, out = arguments
            constants = _row(builder, table, parameters)
            before = builder.block
            loop, after = builder.append_basic_block("voxels"), builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            done, shift = builder.phi(count.type), builder.phi(step.type)
            done.add_incoming(count.type(0), before)
            shift.add_incoming(step.type(0), before)
            totals = [[builder.phi(_VECTOR) for _ in range(sums)] for _ in range(unroll)]
            results = []
            for k in range(unroll):
                offset = _offset(builder, shift, step, k)
                terms = code(builder, constants, builder.add(x, offset), builder.add(g, offset))
                results.append([_added(builder, a, b) for a, b in zip(totals[k], terms, strict=True)])
            following = builder.add(done, count.type(unroll))
            done.add_incoming(following, loop)
            shift.add_incoming(_offset(builder, shift, step, unroll), loop)
            for into, terms in zip(totals, results, strict=True):
                for total, result in zip(into, terms, strict=True):
                    total.add_incoming(_constant(0.0), before)
                    total.add_incoming(result, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
            builder.position_at_end(after)
            for k in range(sums):
                place = builder.add(out, out.type(BYTES * k))
                value = _load_at(builder, place)
                for result in results:
                    value = _added(builder, value, result[k])
                _store_at(builder, value, place)
            return context.get_dummy_value()

        return types.void(*(_ADDRESS,) * 6), generate

    return apply


def moments(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """v = x − pivot: v, v²."""
    v = builder.fsub(_load_at(builder, x), constants[0], flags=("contract",))
    return [v, _multiplied(builder, v, v)]


def _through_activation(builder: Any, constants: list[Any], x: Any, g: Any) -> tuple[Any, Any, Any]:
    """x, the gradient g' before the activation and what the slope gets, for constants scale, shift, slope."""
    scale, shift, slope = constants[:3]
    value, incoming = _load_at(builder, x), _load_at(builder, g)
    a = _added(builder, _multiplied(builder, value, scale), shift)
    positive = builder.fcmp_ordered(">", a, _constant(0.0))
    before = builder.select(positive, incoming, _multiplied(builder, incoming, slope))
    lost = builder.select(positive, _constant(0.0), _multiplied(builder, incoming, a))
    return value, before, lost


def norm_sums(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """g', g' · (x − mean), and the slope's gradient, for constants scale, shift, slope, mean."""
    value, before, lost = _through_activation(builder, constants, x, g)
    centred = builder.fsub(value, constants[3], flags=("contract",))
    return [before, _multiplied(builder, before, centred), lost]


def norm_values(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """g becomes g' · scale + x · a + b, for constants scale, shift, slope, a, b."""
    value, before, _ = _through_activation(builder, constants, x, g)
    affine = _added(builder, _multiplied(builder, value, constants[3]), constants[4])
    _store_at(builder, _added(builder, _multiplied(builder, before, constants[0]), affine), g)
    return []
