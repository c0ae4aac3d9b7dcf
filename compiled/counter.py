"""The counter from which threads take their next piece of work; for compiled code, so importing it needs Numba."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def take_next(context: Any, address: Any) -> Any:
    """The int64 at an address, which is one higher afterwards, atomically: no two threads are given the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        # "monotonic" orders this one number alone. Nothing else is passed on through it: the results are read after
        # all threads have ended, which orders the rest.
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), generate
