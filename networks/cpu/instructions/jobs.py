"""Jobs and tables of int64 in memory as named tuples of compiled code: ``job.padding``, not ``job[16]``.

A ``job.py`` beside the kernels names the fields of each job once, as a NamedTuple. Python fills it by keyword, so that
a field that is missing or unknown is an error there, and hands it to `rarevox.compiled.share_out`; a kernel reads it
with a function made here, and an unknown name is an error when it is compiled. Needs Numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# What a kernel is to C: a function of the pointer to its job.
KERNEL = types.void(types.CPointer(types.int64))
_INT64 = ir.IntType(64)


def _kind(fields: Any) -> Any:
    """The type that Numba has for a NamedTuple of int64."""
    return types.NamedUniTuple(types.int64, len(fields._fields), fields)


def _loaded(builder: Any, first: Any, count: int) -> list[Any]:
    """So many int64 from a pointer on. Those that a kernel does not use cost nothing: LLVM drops their loads."""
    return [builder.load(builder.gep(first, [_INT64(k)])) for k in range(count)]


def job_reader(fields: Any) -> Any:
    """A function (pointer to int64) that gives the job there, and the address of the number of the next piece of work.

    The latter is what `rarevox.compiled.share_out` puts after the fields (`rarevox.compiled.counter.take_next`).

    Args:
        fields: a NamedTuple of int.
    """
    count = len(fields._fields)

    @intrinsic
    def read(context: Any, pointer: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            *values, counter = _loaded(builder, arguments[0], count + 1)
            job = context.make_tuple(builder, signature.return_type[0], values)
            return context.make_tuple(builder, signature.return_type, [job, counter])

        return types.Tuple((_kind(fields), types.int64))(types.CPointer(types.int64)), generate

    return read


def record_reader(fields: Any) -> Any:
    """A function (address) that gives the record of int64 there, as a job's tables hold them one after another.

    Args:
        fields: a NamedTuple of int.
    """
    count = len(fields._fields)

    @intrinsic
    def read(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            first = builder.inttoptr(arguments[0], _INT64.as_pointer())
            return context.make_tuple(builder, signature.return_type, _loaded(builder, first, count))

        return _kind(fields)(types.int64), generate

    return read
