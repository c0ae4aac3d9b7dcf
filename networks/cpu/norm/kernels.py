"""Compiled passes of training: statistics of a batch norm, the way back through it and its activation.

Compiled by Numba when first used and cached on disk; importing this module without Numba raises ImportError. Tensors
are (voxels, C) of float32, C a multiple of 8. Parameters come in eights of channels, (eights, n, 8). A piece of work is
`ROWS` voxels, and its sums are its own, (pieces, eights, n, 8): their total does not depend on the threads.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import reductions, vectors
from rarevox.networks.cpu.instructions.reductions import over_voxels
from rarevox.networks.cpu.instructions.vectors import BYTES, LANES

ROWS, _FOUR = 512, 4
_moments_4, _moments_1 = (over_voxels(reductions.moments, 1, 2, unroll=n) for n in (_FOUR, 1))
_sums_4, _sums_1 = (over_voxels(reductions.norm_sums, 4, 3, unroll=n) for n in (_FOUR, 1))
_values_4, _values_1 = (over_voxels(reductions.norm_values, 5, 0, unroll=n) for n in (_FOUR, 1))

_JOB = types.void(types.CPointer(types.int64))
_STAMP = source_stamp(counter, reductions, vectors)


@njit(nogil=True, error_model="numpy")
def _work(job: Any, task: int, parameters: int, sums: int) -> None:
    x, g, table, out, voxels, channels = job[0], job[1], job[2], job[3], job[4], job[5]
    step, eights = 4 * channels, channels // LANES
    while True:
        piece = take_next(job[6])
        if piece * ROWS >= voxels:
            return
        rows = min(ROWS, voxels - piece * ROWS)
        fours = rows // _FOUR * _FOUR
        for eight in range(eights):
            first = piece * ROWS * step + eight * BYTES
            rest = first + fours * step
            own, place = table + eight * parameters * BYTES, out + (piece * eights + eight) * sums * BYTES
            if task == 0:
                if fours:
                    _moments_4(x + first, g + first, step, fours, own, place)
                if rows > fours:
                    _moments_1(x + rest, g + rest, step, rows - fours, own, place)
            elif task == 1:
                if fours:
                    _sums_4(x + first, g + first, step, fours, own, place)
                if rows > fours:
                    _sums_1(x + rest, g + rest, step, rows - fours, own, place)
            else:
                if fours:
                    _values_4(x + first, g + first, step, fours, own, place)
                if rows > fours:
                    _values_1(x + rest, g + rest, step, rows - fours, own, place)


def _compiled(task: int, parameters: int, sums: int, stamp: int) -> Any:
    """`_work` of one task as a C function, kept on disk for the ``stamp`` of what it is made from."""

    @cfunc(_JOB, cache=True, error_model="numpy")
    def work(job: Any) -> None:
        _ = stamp
        _work(job, task, parameters, sums)

    return work


# Parameters pivot; sums of x − pivot and of its square.
moments = _compiled(0, 1, 2, _STAMP)
# Parameters scale, shift, slope, mean; sums of the gradient before the activation, of that times x − mean, and the
# gradient of the slope.
gradient_sums = _compiled(1, 4, 3, _STAMP)
# Parameters scale, shift, slope, a, b; the gradient becomes what is before the activation · scale + x · a + b.
gradient_values = _compiled(2, 5, 0, _STAMP)
