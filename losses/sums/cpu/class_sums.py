"""The sums of a chunk of voxels, class by class, from its softmax; needs Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.losses.sums.cpu.chunks import OPTIONS
from rarevox.losses.sums.cpu.job import CLASSES, ENTROPY, SQUARES
from rarevox.losses.sums.cpu.numbers import FLOAT_BYTES, ZERO, floats, int32s, logarithm
from rarevox.losses.sums.cpu.softmax import E_ROWS, INVERSE, LABEL, TOTAL, WEIGHT, Z_ROWS, row_sum
from rarevox.losses.sums.table import CE, PP, PPR, PR, VOXELS, P, R


@njit(**OPTIONS)
def _class_sums(e_row: int, inverse_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """Σwp, Σwr and Σwpr of one class."""
    e, inverse, y, w = floats(e_row), floats(inverse_row), int32s(label_row), floats(weight_row)
    p_sum, r_sum, pr_sum = ZERO, ZERO, ZERO
    for i in range(n):
        p = e[i] * inverse[i]
        r = w[i] if y[i] == k else ZERO  # one choice only: with several, LLVM makes branches and no vectors
        p_sum += p * w[i]
        r_sum += r
        pr_sum += p * r
    return p_sum, r_sum, pr_sum


@njit(**OPTIONS)
def _class_squares(e_row: int, inverse_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """Σwp, Σwr, Σwpr, Σwp² and Σwp²r of one class. (A flag in `_class_sums` would be a branch in its loop.)"""
    e, inverse, y, w = floats(e_row), floats(inverse_row), int32s(label_row), floats(weight_row)
    p_sum, r_sum, pr_sum, pp_sum, ppr_sum = ZERO, ZERO, ZERO, ZERO, ZERO
    for i in range(n):
        p = e[i] * inverse[i]
        pw = p * w[i]
        r = w[i] if y[i] == k else ZERO
        pr = p * r
        p_sum += pw
        r_sum += r
        pr_sum += pr
        pp_sum += p * pw
        ppr_sum += p * pr
    return p_sum, r_sum, pr_sum, pp_sum, ppr_sum


@njit(**OPTIONS)
def _class_entropy(z_row: int, log_row: int, label_row: int, weight_row: int, k: Any, n: int) -> Any:
    """−Σwr log p of one class, from its logits less the highest."""
    z, log_total, y, w = floats(z_row), floats(log_row), int32s(label_row), floats(weight_row)
    total = ZERO
    for i in range(n):
        total += (log_total[i] - z[i]) * w[i] if y[i] == k else ZERO
    return total


@njit(**OPTIONS)
def _logarithms(row: int, n: int) -> None:
    """The logarithms of a row, in its place."""
    values = floats(row)
    for i in range(n):
        values[i] = logarithm(values[i])


@njit(**OPTIONS)
def add_sums(job: Any, rows: Any, pitch: int, n: int, sums: Any) -> None:
    """Add the sums of a chunk to those of its block, COLUMNS × K from ``sums`` on, in float64."""
    inverse, labels, weight = rows[INVERSE], rows[LABEL], rows[WEIGHT]
    classes, squares, entropy = job[CLASSES], job[SQUARES] != 0, job[ENTROPY] != 0
    if entropy:
        _logarithms(rows[TOTAL], n)
    step = FLOAT_BYTES * pitch
    voxels = np.float64(row_sum(weight, n))
    for k in range(classes):
        row, label = rows[E_ROWS] + k * step, np.int32(k)
        sums[VOXELS * classes + k] += voxels
        if squares:
            p, r, pr, pp, ppr = _class_squares(row, inverse, labels, weight, label, n)
            sums[PP * classes + k] += pp
            sums[PPR * classes + k] += ppr
        else:
            p, r, pr = _class_sums(row, inverse, labels, weight, label, n)
        sums[P * classes + k] += p
        sums[R * classes + k] += r
        sums[PR * classes + k] += pr
        if entropy:
            sums[CE * classes + k] += _class_entropy(rows[Z_ROWS] + k * step, rows[TOTAL], labels, weight, label, n)
