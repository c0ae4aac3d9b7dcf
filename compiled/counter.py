"""The counter from which threads take their next piece of work; for compiled code, so importing it needs Numba."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _counter() -> Any:
    """A function (address) that gives the int64 there, which is one higher afterwards, atomically."""

    @intrinsic
    def take(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

        return types.int64(types.int64), generate

    return take


take_next = _counter()
