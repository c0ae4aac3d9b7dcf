"""Products with matrices: small constant ones as straight code, and blocks of larger ones with the sums in registers.

- `linear_map` and `square_map` carry vectors through a constant matrix, one and two axes of Winograd's transforms: the
  factors stand in the instructions, zeros and ones cost nothing, and rows of opposite signs share their sums.
- `product` is the microkernel of a matrix product: a register block of some rows by some vectors, over the whole depth.

Compiled by Numba; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import (
    FLOAT,
    INTEGER,
    activated,
    added,
    constant,
    function,
    load_at,
    multiplied,
    stepped,
    store_at,
    stream_at,
    subtracted,
    vectors_at,
)

_ROWS_OF_A_POINTER = 3


def _sum(builder: Any, factors: np.ndarray, vectors: list[Any]) -> Any:
    """Σ factors[k] · vectors[k] as instructions, None if every factor is zero; zeros and ones cost nothing."""
    total = None
    for factor, vector in zip(factors, vectors, strict=True):
        if factor == 0:
            continue
        term = vector if factor == 1 else multiplied(builder, vector, constant(factor))
        total = term if total is None else added(builder, total, term)
    return total


def _twin(lines: np.ndarray, i: int) -> int | None:
    """The first line after ``i`` that differs from it in signs alone.

    Points of evaluation come in pairs ± p, so the matrices of `rarevox.networks.cpu.winograd.toom_cook` are full of
    them.
    """
    return next((j for j in range(i + 1, len(lines)) if np.array_equal(np.abs(lines[i]), np.abs(lines[j]))), None)


def _applied(builder: Any, matrix: np.ndarray, vectors: list[Any]) -> list[Any]:
    """``matrix`` · vectors. Rows or columns that differ in signs alone share their sums and differences."""
    # Two columns a, ±a meet v and w as a · (v ± w), each sum or difference formed once: those are vectors of their own
    # from here on, until no such columns are left.
    for i in range(matrix.shape[1]):
        j = _twin(matrix.T, i)
        if j is not None:
            same = matrix[:, i] == matrix[:, j]
            columns = matrix[:, i] * same, matrix[:, i] * ~same
            pair = added(builder, vectors[i], vectors[j]), subtracted(builder, vectors[i], vectors[j])
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
        # Rows for p and −p are alike at even powers and opposite at odd ones: even ± factor · odd, where ``even`` and
        # ``odd`` are formed once and each row is one fused multiply-add more.
        same = row == matrix[j]
        factor = row[np.flatnonzero(~same)[-1]]
        even, odd = _sum(builder, row * same, vectors), _sum(builder, row * ~same / factor, vectors)
        odd = odd if factor == 1 else multiplied(builder, odd, constant(factor))
        results[i], results[j] = added(builder, even, odd), subtracted(builder, even, odd)
    return results


def linear_map(
    matrix: np.ndarray,
    *,
    first: int = 0,
    normed: bool = False,
    biased: bool = False,
    plus: bool = False,
    stream: bool = False,
) -> Any:
    """A function (source, source step, target, target step, …): matrix · the vectors at source, to target.

    Args:
        matrix: (rows, columns).
        first: the vectors lie in a ring whose first one is at this place.
        normed: an address more, of three vectors, scale, shift and slope: every vector v of the source enters as
            a = v · scale + shift where that is positive, a · slope elsewhere.
        biased: an address more, of two vectors: the bias is added to every result, and the activation with the slope
            taken.
        plus: an address and a step more, of vectors that are added to the results in the end.
        stream: the results go past the caches (`rarevox.networks.cpu.instructions.vectors.stream_at`).
    """
    store, count = stream_at if stream else store_at, matrix.shape[1]

    def code(builder: Any, source: Any, step: Any, target: Any, target_step: Any, *more: Any) -> None:
        rest = list(more)
        vectors = [load_at(builder, stepped(builder, source, step, (first + k) % count)) for k in range(count)]
        if normed:
            scale, shift, slope = vectors_at(builder, rest.pop(0), 3)
            vectors = [added(builder, multiplied(builder, v, scale), shift) for v in vectors]
            vectors = [activated(builder, v, slope) for v in vectors]
        results = _applied(builder, matrix, vectors)
        if biased:
            bias, slope = vectors_at(builder, rest.pop(0), 2)
            results = [activated(builder, added(builder, v, bias), slope) for v in results]
        if plus:
            other, other_step = rest
            others = [load_at(builder, stepped(builder, other, other_step, k)) for k in range(len(results))]
            results = [added(builder, a, b) for a, b in zip(results, others, strict=True)]
        for k, result in enumerate(results):
            store(builder, result, stepped(builder, target, target_step, k))

    return function(code)


def square_map(matrix: np.ndarray) -> Any:
    """A function (source, step, other step, target): matrix · X · matrixᵀ for the n × n vectors X at source.

    A row of X lies along the other step; the results lie row after row. Two rows of matrix · X at a time, those that
    share their sums, stay in registers until they are through the second product: all n² vectors would be 36 for
    Winograd's 6, more than the 16 registers of AVX2, or the 32 of AVX-512.
    """
    size = len(matrix)
    # Rows that share their sums go together, what is left over by twos.
    pairs, left = [], list(range(size))
    while left:
        i = left.pop(0)
        j = _twin(matrix, i)
        if j is None or j not in left:
            j = left[-1] if left else i
        left = [k for k in left if k != j]
        pairs.append([i, j] if i != j else [i])

    def code(builder: Any, source: Any, step: Any, other: Any, target: Any) -> None:
        for pair in pairs:
            used = np.flatnonzero(matrix[pair].any(axis=0))  # columns of zeros are not even loaded
            columns = []
            for k in range(size):
                place = stepped(builder, source, other, k)
                vectors = [load_at(builder, stepped(builder, place, step, int(i))) for i in used]
                columns.append(_applied(builder, matrix[pair][:, used], vectors))
            for number, row in enumerate(pair):
                for k, result in enumerate(_applied(builder, matrix, [column[number] for column in columns])):
                    store_at(builder, result, builder.add(target, target.type((row * size + k) * VECTOR_BYTES)))

    return function(code)


def product(rows: int, vectors: int, *, add: bool = False, biased: bool = False, lanes: int = LANES) -> Any:
    """A function (a, a row, a step, b, b step, c, c row, depth, …): c = Σ a b, or with ``add`` c += Σ a b.

    ``rows`` rows and ``vectors`` · ``lanes`` columns of c; the sums stay in registers over the whole depth, for each
    step of which one number of every row of a meets the vectors of b::

                          b, step k:  [ vector 0 | vector 1 ]
        a, step k:  row 0  [ • ]  →   [  c 0,0   |  c 0,1   ]   c += broadcast(•) · vector, one fused multiply-add each;
                    row 1  [ • ]  →   [  c 1,0   |  c 1,1   ]   a load from b serves all rows, one from a all vectors
                    …

    With ``biased``, of vectors of eight, an address more, of a bias and a slope for each vector: the bias is added to c
    and the activation taken, while the sums are still in registers.
    """
    vector = ir.VectorType(FLOAT, lanes)
    undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [FLOAT(0.0)] * lanes)
    first_lane = ir.Constant(ir.VectorType(INTEGER, lanes), [0] * lanes)
    places = [divmod(index, vectors) for index in range(rows * vectors)]

    def code(
        builder: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any, depth: Any, *more: Any
    ) -> None:
        before = builder.block
        outs = [builder.add(stepped(builder, c, c_row, row), c.type(FLOAT_BYTES * lanes * v)) for row, v in places]
        starts = [load_at(builder, out, vector) if add else zeros for out in outs]
        # A pointer for each row would be more than there are registers for addresses (16): every third row has one, and
        # the two after it are reached from there, since an instruction adds one or two times a register to an address.
        bases = [stepped(builder, a, a_row, row) for row in range(0, rows, _ROWS_OF_A_POINTER)]
        loop, after = builder.append_basic_block("depth"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        # Counter, pointers and sums are phi nodes: they come from before the loop at first and from its end afterwards.
        step, right, lefts = builder.phi(depth.type), builder.phi(b.type), [builder.phi(a.type) for _ in bases]
        sums = [builder.phi(vector) for _ in places]
        beside = [builder.add(right, b.type(FLOAT_BYTES * lanes * v)) for v in range(vectors)]
        columns = [load_at(builder, place, vector) for place in beside]
        results: list[Any] = []
        for row in range(rows):
            place = stepped(builder, lefts[row // _ROWS_OF_A_POINTER], a_row, row % _ROWS_OF_A_POINTER)
            # LLVM knows a number in lane 0 that is shuffled to all lanes as one broadcast from memory.
            lane = builder.insert_element(undefined, load_at(builder, place, FLOAT), INTEGER(0))
            spread = builder.shuffle_vector(lane, undefined, first_lane)
            for column in columns:
                results.append(added(builder, sums[len(results)], multiplied(builder, spread, column)))
        following = builder.add(step, depth.type(1))
        turns = [(step, depth.type(0), following), (right, b, builder.add(right, b_step))]
        turns += [(left, base, builder.add(left, a_step)) for left, base in zip(lefts, bases, strict=True)]
        turns += list(zip(sums, starts, results, strict=True))
        for value, start, again in turns:
            value.add_incoming(start, before)
            value.add_incoming(again, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        if biased:
            pairs = vectors_at(builder, more[0], 2 * vectors)
            results = [added(builder, r, pairs[2 * v]) for r, (_, v) in zip(results, places, strict=True)]
            results = [activated(builder, r, pairs[2 * v + 1]) for r, (_, v) in zip(results, places, strict=True)]
        for out, value in zip(outs, results, strict=True):
            store_at(builder, value, out)

    return function(code)
