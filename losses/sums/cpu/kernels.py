"""The compiled part of `rarevox.losses.sums.cpu.overlap`; importing it without Numba raises ImportError.

A volume is problems of K classes by N voxels: a sample's softmax, or one logit z of a sample as the classes [0, z].
Threads take stretches of voxels of one problem. A stretch goes through in chunks of `PITCH` voxels or fewer, whose
logits lie class by class in scratch memory that stays in the cache; each loop over the voxels of a chunk is one that
LLVM turns into vectors. Sums are float32 within a chunk and float64 from chunk to chunk, and each stretch has sums of
its own, so that the result does not depend on the threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.losses.sums.cpu import chunks as cpu_chunks
from rarevox.losses.sums.cpu import job as cpu_job
from rarevox.losses.sums.cpu import numbers
from rarevox.losses.sums.cpu.chunks import OPTIONS, bring_labels, bring_weights, fill, move
from rarevox.losses.sums.cpu.job import (
    CLASSES,
    COLUMNS,
    COUNTER,
    DEPTH,
    ENTROPY,
    EXTREMES,
    GRADIENT,
    GROUPS,
    HEIGHT,
    LOGITS,
    PROBLEMS,
    SEEN,
    SIGMOID,
    SQUARES,
    STRETCH,
    SUMS,
    WIDTH,
)
from rarevox.losses.sums.cpu.numbers import doubles, exponential, floats, int32s, larger, logarithm

# Voxels of a chunk at most, and floats of its logits: these and their exponentials, 40 KiB, stay in a core's caches,
# and a float32 sum of a chunk has few enough terms a lane for an error of 1e-7 or so.
PITCH = 512
CHUNK_FLOATS = 5120

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_INFINITY = np.float32(np.inf)


@njit(**OPTIONS)
def _row_sum(row: int, n: int) -> Any:
    values = floats(row)
    total = _ZERO
    for i in range(n):
        total += values[i]
    return total


@njit(**OPTIONS)
def _raise(highest: int, row: int, n: int) -> None:
    """``highest`` to the logits of one class where these are higher."""
    z, m = floats(row), floats(highest)
    for i in range(n):
        m[i] = larger(z[i], m[i])


@njit(**OPTIONS)
def _exponentials(row: int, highest: int, total: int, out: int, n: int) -> None:
    """The logits of one class below the highest, in their place, and the exponentials of those."""
    z, m, s, e = floats(row), floats(highest), floats(total), floats(out)
    for i in range(n):
        below = z[i] - m[i]
        value = exponential(below)
        z[i] = below
        e[i] = value
        s[i] += value


@njit(**OPTIONS)
def _reciprocals(row: int, out: int, n: int) -> None:
    source, target = floats(row), floats(out)
    for i in range(n):
        target[i] = _ONE / source[i]


@njit(**OPTIONS)
def _logarithms(row: int, n: int) -> None:
    values = floats(row)
    for i in range(n):
        values[i] = logarithm(values[i])


@njit(**OPTIONS)
def _softmax(rows: Any, classes: int, pitch: int, n: int) -> Any:
    """Exponentials of a chunk, their sum over the classes and its reciprocal; gives the sum of the logits."""
    z, e, highest, total, inverse = rows[0], rows[1], rows[2], rows[3], rows[4]
    fill(highest, -_INFINITY, n)
    fill(total, _ZERO, n)
    seen = np.float64(0)
    for k in range(classes):
        seen += _row_sum(z + 4 * k * pitch, n)  # in one loop with the next, LLVM would make no vectors of the two
        _raise(highest, z + 4 * k * pitch, n)
    for k in range(classes):
        _exponentials(z + 4 * k * pitch, highest, total, e + 4 * k * pitch, n)
    _reciprocals(total, inverse, n)
    return seen


@njit(**OPTIONS)
def _class_sums(e_row: int, inverse_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """Σwp, Σwr and Σwpr of one class."""
    e, inverse, y, w = floats(e_row), floats(inverse_row), int32s(label_row), floats(weight_row)
    p_sum, r_sum, pr_sum = _ZERO, _ZERO, _ZERO
    for i in range(n):
        p = e[i] * inverse[i]
        r = w[i] if y[i] == k else _ZERO  # one choice only: with several, LLVM makes branches and no vectors
        p_sum += p * w[i]
        r_sum += r
        pr_sum += p * r
    return p_sum, r_sum, pr_sum


@njit(**OPTIONS)
def _class_squares(e_row: int, inverse_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """Σwp, Σwr, Σwpr, Σwp² and Σwp²r of one class."""
    e, inverse, y, w = floats(e_row), floats(inverse_row), int32s(label_row), floats(weight_row)
    p_sum, r_sum, pr_sum, pp_sum, ppr_sum = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(n):
        p = e[i] * inverse[i]
        pw = p * w[i]
        r = w[i] if y[i] == k else _ZERO
        pr = p * r
        p_sum += pw
        r_sum += r
        pr_sum += pr
        pp_sum += p * pw
        ppr_sum += p * pr
    return p_sum, r_sum, pr_sum, pp_sum, ppr_sum


@njit(**OPTIONS)
def _class_entropy(z_row: int, log_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """−Σwr log p of one class, from its logits below the highest."""
    z, log_total, y, w = floats(z_row), floats(log_row), int32s(label_row), floats(weight_row)
    total = _ZERO
    for i in range(n):
        total += (log_total[i] - z[i]) * w[i] if y[i] == k else _ZERO
    return total


@njit(**OPTIONS)
def _add_sums(job: Any, rows: Any, pitch: int, n: int, sums: Any) -> None:
    """Add the sums of a chunk to those of its stretch, COLUMNS × K from ``sums`` on."""
    z, e, log_total, inverse, labels, weight = rows[0], rows[1], rows[3], rows[4], rows[5], rows[6]
    classes, squares, entropy = job[CLASSES], job[SQUARES] != 0, job[ENTROPY] != 0
    if entropy:
        _logarithms(log_total, n)
    voxels = np.float64(_row_sum(weight, n))
    for k in range(classes):
        row, label = e + 4 * k * pitch, np.int32(k)
        sums[k] += voxels
        if squares:
            p, r, pr, pp, ppr = _class_squares(row, inverse, labels, weight, label, n)
            sums[4 * classes + k] += pp
            sums[5 * classes + k] += ppr
        else:
            p, r, pr = _class_sums(row, inverse, labels, weight, label, n)
        sums[classes + k] += p
        sums[2 * classes + k] += r
        sums[3 * classes + k] += pr
        if entropy:
            sums[6 * classes + k] += _class_entropy(z + 4 * k * pitch, log_total, labels, weight, label, n)


@njit(**OPTIONS)
def _slope(e_row: int, inverse_row: int, label_row: int, s_row: int, out: int, k: Any, g: Any, n: int) -> None:
    """p d of one class to ``out``, added to ``s_row`` too, where d = g_P + r g_PR + 2p (g_PP + r g_PPR)."""
    e, inverse, y, s, t = floats(e_row), floats(inverse_row), int32s(label_row), floats(s_row), floats(out)
    g_p, g_pr, g_pp, g_ppr = g
    with_pr, with_ppr = g_p + g_pr, g_pp + g_ppr
    for i in range(n):
        p = e[i] * inverse[i]
        here = y[i] == k
        value = p * ((with_pr if here else g_p) + _TWO * p * (with_ppr if here else g_pp))
        t[i] = value
        s[i] += value


@njit(**OPTIONS)
def _level(
    g_entropy: int, label_row: int, s_row: int, inverse_row: int, weight_row: int, pull_row: int, classes: int, n: int
) -> None:
    """What every class of a voxel shares: w (Σ p d − g_CE) / Σe to ``inverse_row``, w g_CE to ``pull_row``."""
    g, y, s = floats(g_entropy), int32s(label_row), floats(s_row)
    inverse, w, pull = floats(inverse_row), floats(weight_row), floats(pull_row)
    for i in range(n):
        label = y[i]
        pull[i] = g[label] if 0 <= label < classes else _ZERO
    for i in range(n):
        inverse[i] *= w[i] * (s[i] - pull[i])
    for i in range(n):
        pull[i] *= w[i]


@njit(**OPTIONS)
def _settle(
    row: int, e_row: int, level_row: int, label_row: int, weight_row: int, pull_row: int, k: Any, n: int
) -> None:
    """The gradient of one class's logits over its p d."""
    t, e, level, y = floats(row), floats(e_row), floats(level_row), int32s(label_row)
    w, pull = floats(weight_row), floats(pull_row)
    for i in range(n):
        t[i] = w[i] * t[i] - e[i] * level[i] - (pull[i] if y[i] == k else _ZERO)


@njit(**OPTIONS)
def _gradient(job: Any, rows: Any, pitch: int, n: int, g: Any) -> None:
    """The gradient of a chunk's logits over the logits, from that of the sums, COLUMNS × K from ``g`` on."""
    z, e, pull, s, inverse, labels, weight = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    classes = job[CLASSES]
    grad_sums = floats(g)
    fill(s, _ZERO, n)
    for k in range(classes):
        of = (
            grad_sums[classes + k],
            grad_sums[3 * classes + k],
            grad_sums[4 * classes + k],
            grad_sums[5 * classes + k],
        )
        _slope(e + 4 * k * pitch, inverse, labels, s, z + 4 * k * pitch, np.int32(k), of, n)
    _level(g + 4 * 6 * classes, labels, s, inverse, weight, pull, classes, n)
    for k in range(classes):
        _settle(z + 4 * k * pitch, e + 4 * k * pitch, inverse, labels, weight, pull, np.int32(k), n)


@njit(**OPTIONS)
def _work(job: Any, backward: bool) -> None:
    """Take stretches until none is left."""
    classes, voxels = job[CLASSES], job[DEPTH] * job[HEIGHT] * job[WIDTH]
    channels, groups = 1 if job[SIGMOID] else classes, job[GROUPS]
    pitch = min(PITCH, max(64, CHUNK_FLOATS // classes // 16 * 16))
    memory = np.zeros((2 * classes + 5) * pitch + 16, np.float32)
    base = memory.ctypes.data + 63 & -64
    row = 4 * pitch
    others = base + 2 * classes * row
    rows = (base, base + classes * row, others, others + row, others + 2 * row, others + 3 * row, others + 4 * row)
    stretches = -(-voxels // job[STRETCH])
    last = job[PROBLEMS] * stretches
    while True:
        number = take_next(job[COUNTER])
        if number >= last:
            return
        problem, begin = number // stretches, number % stretches * job[STRETCH]
        sums, seen = doubles(job[SUMS] + 8 * number * COLUMNS * classes), doubles(job[EXTREMES] + 8 * number * SEEN)
        end = min(voxels, begin + job[STRETCH])
        for first in range(begin, end, pitch):
            n = min(pitch, end - first)
            place = (problem, first, n)
            z = rows[0] + (classes - channels) * row
            if channels < classes:
                fill(rows[0], _ZERO, n)
            move(job, LOGITS, z, pitch, channels, place)
            bring_weights(job, rows[6], problem // groups * voxels + first, n, seen)
            bring_labels(job, rows[5], rows[6], problem * voxels + first, n, seen)
            seen[0] += _softmax(rows, classes, pitch, n)
            if backward:
                _gradient(job, rows, pitch, n, job[SUMS] + 4 * problem * COLUMNS * classes)
                move(job, GRADIENT, z, pitch, channels, place)
            else:
                _add_sums(job, rows, pitch, n, sums)


def _compiled(stamp: int) -> Any:
    @cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")
    def work(job: Any) -> None:
        """The sums (problems, stretches, COLUMNS, K) and extremes (problems, stretches, SEEN) in float64; for a job
        that has the address of a gradient, that of the logits from that of the sums (problems, COLUMNS, K) in float32.
        """
        _ = stamp
        _work(job, job[GRADIENT] != 0)

    return work


work = _compiled(source_stamp(counter, numbers, cpu_chunks, cpu_job))
