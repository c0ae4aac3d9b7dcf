"""One pass over the voxels of a volume, eight channels at a time: the sums of a batch norm and its way back.

Compiled by Numba; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rarevox.networks.cpu.instructions.sizes import VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import (
    VECTOR,
    added,
    constant,
    function,
    load_at,
    multiplied,
    stepped,
    store_at,
    subtracted,
    vectors_at,
)


def over_voxels(code: Callable[..., list[Any]], parameters: int, sums: int, *, unroll: int) -> Any:
    """A function (x, g, step, count, parameter address, out): goes over voxels, ``step`` bytes apart, with one vector.

    Args:
        code: ``code(builder, parameter vectors, address in x, address in g)`` gives the terms of the sums.
        parameters: vectors at the parameter address.
        sums: vectors that are added up over all voxels and added to those at ``out``.
        unroll: voxels for each turn of the loop, of which ``count`` is a multiple. Each has sums of its own: a sum
            waits for the one before it, and with several the processor has others to go on with meanwhile.
    """

    def loop_over(builder: Any, x: Any, g: Any, step: Any, count: Any, table: Any, out: Any) -> None:
        # The loop is written as LLVM wants it: the counters and all sums are phi nodes, whose values come from before
        # the loop at first and from its own end then. So the sums stay in registers.
        constants = vectors_at(builder, table, parameters)
        before = builder.block
        loop, after = builder.append_basic_block("voxels"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        done, shift = builder.phi(count.type), builder.phi(step.type)
        done.add_incoming(count.type(0), before)
        shift.add_incoming(step.type(0), before)
        totals = [[builder.phi(VECTOR) for _ in range(sums)] for _ in range(unroll)]
        results = []
        for k in range(unroll):
            offset = stepped(builder, shift, step, k)
            terms = code(builder, constants, builder.add(x, offset), builder.add(g, offset))
            results.append([added(builder, a, b) for a, b in zip(totals[k], terms, strict=True)])
        following = builder.add(done, count.type(unroll))
        done.add_incoming(following, loop)
        shift.add_incoming(stepped(builder, shift, step, unroll), loop)
        for into, terms in zip(totals, results, strict=True):
            for total, result in zip(into, terms, strict=True):
                total.add_incoming(constant(0.0), before)
                total.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for k in range(sums):
            place = builder.add(out, out.type(VECTOR_BYTES * k))
            value = load_at(builder, place)
            for result in results:
                value = added(builder, value, result[k])
            store_at(builder, value, place)

    return function(loop_over)


def moments(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """v = x − pivot: v, v². With a pivot near the values the square of their mean does not swallow the variance."""
    v = subtracted(builder, load_at(builder, x), constants[0])
    return [v, multiplied(builder, v, v)]


def _through_activation(builder: Any, constants: list[Any], x: Any, g: Any) -> tuple[Any, Any, Any]:
    """x, the gradient g' before the activation and what the slope gets, for constants scale, shift, slope."""
    scale, shift, slope = constants[:3]
    value, incoming = load_at(builder, x), load_at(builder, g)
    a = added(builder, multiplied(builder, value, scale), shift)
    positive = builder.fcmp_ordered(">", a, constant(0.0))
    # Lanes cannot branch one by one: both sides are computed, and each lane selects its own.
    before = builder.select(positive, incoming, multiplied(builder, incoming, slope))
    lost = builder.select(positive, constant(0.0), multiplied(builder, incoming, a))
    return value, before, lost


def norm_sums(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """g', g' · (x − mean), and the slope's gradient, for constants scale, shift, slope, mean."""
    value, before, lost = _through_activation(builder, constants, x, g)
    centred = subtracted(builder, value, constants[3])
    return [before, multiplied(builder, before, centred), lost]


def norm_values(builder: Any, constants: list[Any], x: Any, g: Any) -> list[Any]:
    """g becomes g' · scale + x · a + b, for constants scale, shift, slope, a, b."""
    value, before, _ = _through_activation(builder, constants, x, g)
    affine = added(builder, multiplied(builder, value, constants[3]), constants[4])
    store_at(builder, added(builder, multiplied(builder, before, constants[0]), affine), g)
    return []
