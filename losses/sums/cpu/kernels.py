"""The compiled part of `rarevox.losses.sums.cpu.overlap`; importing it without Numba raises ImportError.

A volume is problems of K classes by N voxels: a sample's softmax, or one logit z of a sample as the classes [0, z].
Threads take blocks of voxels of one problem. A block goes through in chunks of `PITCH` voxels or fewer, whose logits
lie class by class in scratch memory that stays in the cache; each loop over the voxels of a chunk is one that LLVM
turns into vectors. Sums are float32 within a chunk and float64 from chunk to chunk, and each block has sums of its own,
so that the result does not depend on the threads.

The loops are many and short for a reason: a loop becomes vectors only if it is simple, and as all rows of a chunk stay
in the cache, another pass over them costs little beside exponentials and memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.losses.sums import checks, table
from rarevox.losses.sums.checks import LOGIT_SUM
from rarevox.losses.sums.cpu import chunks as cpu_chunks
from rarevox.losses.sums.cpu import class_sums, gradient, numbers, softmax
from rarevox.losses.sums.cpu import job as cpu_job
from rarevox.losses.sums.cpu.chunks import OPTIONS, fill, load_labels, load_weights, move
from rarevox.losses.sums.cpu.class_sums import add_sums
from rarevox.losses.sums.cpu.gradient import write_gradient
from rarevox.losses.sums.cpu.job import (
    BLOCK,
    CLASSES,
    COLUMNS,
    COUNTER,
    DEPTH,
    EXTREMES,
    GRADIENT,
    GROUPS,
    HEIGHT,
    LOGITS,
    PROBLEMS,
    SEEN,
    SIGMOID,
    SUMS,
    WIDTH,
)
from rarevox.losses.sums.cpu.numbers import DOUBLE_BYTES, FLOAT_BYTES, ZERO, doubles
from rarevox.losses.sums.cpu.softmax import (
    CHUNK_FLOATS,
    LABEL,
    LINE_BYTES,
    LINE_FLOATS,
    PITCH,
    ROWS,
    WEIGHT,
    Z_ROWS,
    softmax_rows,
)


@njit(**OPTIONS)
def _work(job: Any, backward: bool) -> None:
    """Take blocks until none is left."""
    classes, voxels = job[CLASSES], job[DEPTH] * job[HEIGHT] * job[WIDTH]
    # With sigmoid one row of logits is loaded, and that of the class "rest" before it is zeros: softmax([0, z]).
    channels, groups = 1 if job[SIGMOID] else classes, job[GROUPS]
    pitch = min(PITCH, max(1, CHUNK_FLOATS // classes // LINE_FLOATS) * LINE_FLOATS)
    # Memory of this thread's own; a line more than needed, so that each row can begin at a cache line.
    memory = np.zeros((2 * classes + ROWS - 2) * pitch + LINE_FLOATS, np.float32)
    base = memory.ctypes.data + LINE_BYTES - 1 & -LINE_BYTES
    row = FLOAT_BYTES * pitch
    others = base + 2 * classes * row
    rows = (base, base + classes * row, others, others + row, others + 2 * row, others + 3 * row, others + 4 * row)
    blocks = -(-voxels // job[BLOCK])
    last = job[PROBLEMS] * blocks
    while True:
        number = take_next(job[COUNTER])
        if number >= last:
            return
        problem, begin = number // blocks, number % blocks * job[BLOCK]
        sums = doubles(job[SUMS] + DOUBLE_BYTES * number * COLUMNS * classes)
        seen = doubles(job[EXTREMES] + DOUBLE_BYTES * number * SEEN)
        end = min(voxels, begin + job[BLOCK])
        for first in range(begin, end, pitch):
            n = min(pitch, end - first)
            place = (problem, first, n)
            z = rows[Z_ROWS] + (classes - channels) * row
            if channels < classes:
                fill(rows[Z_ROWS], ZERO, n)  # again for each chunk, as the gradient of the last one stands here
            move(job, LOGITS, z, pitch, channels, place)
            load_weights(job, rows[WEIGHT], problem // groups * voxels + first, n, seen)
            load_labels(job, rows[LABEL], rows[WEIGHT], problem * voxels + first, n, seen)
            seen[LOGIT_SUM] += softmax_rows(rows, classes, pitch, n)
            if backward:
                write_gradient(job, rows, pitch, n, job[SUMS] + FLOAT_BYTES * problem * COLUMNS * classes)
                move(job, GRADIENT, z, pitch, channels, place)
            else:
                add_sums(job, rows, pitch, n, sums)


def _compiled(stamp: int) -> Any:
    @cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")
    def work(job: Any) -> None:
        """The sums (problems, blocks, COLUMNS, K) and extremes (problems, blocks, SEEN) in float64; for a job that has
        the address of a gradient, that of the logits from that of the sums (problems, COLUMNS, K) in float32.
        """
        _ = stamp
        _work(job, job[GRADIENT] != 0)

    return work


work = _compiled(source_stamp(counter, checks, table, numbers, cpu_chunks, cpu_job, softmax, class_sums, gradient))
