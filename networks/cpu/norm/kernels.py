"""Compiled passes of training: statistics of a batch norm, the way back through it and its activation.

Compiled by Numba when first used and cached on disk; importing this module without Numba raises ImportError. Tensors
are (voxels, C) of float32, C a multiple of 8. Parameters come in eights of channels, (eights, n, 8). A piece of work is
`ROWS` voxels, and its sums are its own, (pieces, eights, n, 8): their total does not depend on the threads, and float32
is precise enough for 512 terms, where a whole volume's are added up in float64.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import jobs, reductions, sizes, vectors
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader
from rarevox.networks.cpu.instructions.reductions import over_voxels
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, VECTOR_BYTES
from rarevox.networks.cpu.norm import job as norm_job
from rarevox.networks.cpu.norm.job import ROWS, Pass

# Four voxels a turn with sums of their own hide the time that an addition takes; what is left over goes one by one.
_FOUR = 4
_moments_4, _moments_1 = (over_voxels(reductions.moments, 1, 2, unroll=n) for n in (_FOUR, 1))
_sums_4, _sums_1 = (over_voxels(reductions.norm_sums, 4, 3, unroll=n) for n in (_FOUR, 1))
_values_4, _values_1 = (over_voxels(reductions.norm_values, 5, 0, unroll=n) for n in (_FOUR, 1))
_pass_job = job_reader(Pass)

_SOURCES = (counter, jobs, norm_job, reductions, sizes, vectors)
_STAMP = source_stamp(*_SOURCES)


@njit(nogil=True, error_model="numpy")
def _work(pointer: Any, task: int, parameters: int, sums: int) -> None:
    job, next_piece = _pass_job(pointer)
    x, g = job.x, job.gradient
    stride, eights = FLOAT_BYTES * job.channels, job.channels // LANES
    while True:
        piece = take_next(next_piece)
        if piece * ROWS >= job.voxels:
            return
        rows = min(ROWS, job.voxels - piece * ROWS)
        fours = rows // _FOUR * _FOUR
        for eight in range(eights):
            first = piece * ROWS * stride + eight * VECTOR_BYTES
            rest = first + fours * stride
            own = job.parameters + eight * parameters * VECTOR_BYTES
            place = job.sums + (piece * eights + eight) * sums * VECTOR_BYTES
            # The task is a constant of each kernel below, so that one of the three is compiled into it.
            if task == 0:
                if fours:
                    _moments_4(x + first, g + first, stride, fours, own, place)
                if rows > fours:
                    _moments_1(x + rest, g + rest, stride, rows - fours, own, place)
            elif task == 1:
                if fours:
                    _sums_4(x + first, g + first, stride, fours, own, place)
                if rows > fours:
                    _sums_1(x + rest, g + rest, stride, rows - fours, own, place)
            else:
                if fours:
                    _values_4(x + first, g + first, stride, fours, own, place)
                if rows > fours:
                    _values_1(x + rest, g + rest, stride, rows - fours, own, place)


def _compiled(task: int, parameters: int, sums: int, stamp: int) -> Any:
    """`_work` of one task as a C function, kept on disk for the ``stamp`` of what it is made from."""

    @cfunc(KERNEL, cache=True, error_model="numpy")
    def work(pointer: Any) -> None:
        _ = stamp
        _work(pointer, task, parameters, sums)

    return work


# Parameters pivot; sums of x − pivot and of its square.
moments = _compiled(0, 1, 2, _STAMP)
# Parameters scale, shift, slope, mean; sums of the gradient before the activation, of that times x − mean, and the
# gradient of the slope.
gradient_sums = _compiled(1, 4, 3, _STAMP)
# Parameters scale, shift, slope, a, b; the gradient becomes what is before the activation · scale + x · a + b.
gradient_values = _compiled(2, 5, 0, _STAMP)
