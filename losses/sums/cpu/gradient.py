"""The gradient of a chunk's logits from its softmax and the gradient of the sums; needs Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.losses.sums.cpu.chunks import OPTIONS, fill
from rarevox.losses.sums.cpu.job import CLASSES
from rarevox.losses.sums.cpu.numbers import FLOAT_BYTES, TWO, ZERO, floats, int32s
from rarevox.losses.sums.cpu.softmax import (
    E_ROWS,
    INVERSE,
    LABEL,
    MEAN_SLOPE,
    OF_ENTROPY,
    WEIGHT,
    Z_ROWS,
)
from rarevox.losses.sums.table import CE, PP, PPR, PR, P


@njit(**OPTIONS)
def _slopes(e_row: int, inverse_row: int, label_row: int, mean_row: int, out: int, k: Any, g: Any, n: int) -> None:
    """p d of one class to ``out``, added to ``mean_row`` too, where d = g_P + r g_PR + 2p (g_PP + r g_PPR)."""
    e, inverse, y, mean, t = floats(e_row), floats(inverse_row), int32s(label_row), floats(mean_row), floats(out)
    g_p, g_pr, g_pp, g_ppr = g
    # Chosen between two sums made beforehand: a choice is one blend of vectors, r as a number would be a conversion.
    with_pr, with_ppr = g_p + g_pr, g_pp + g_ppr
    for i in range(n):
        p = e[i] * inverse[i]
        here = y[i] == k
        value = p * ((with_pr if here else g_p) + TWO * p * (with_ppr if here else g_pp))
        t[i] = value
        mean[i] += value


@njit(**OPTIONS)
def _shared_terms(
    g_entropy: int,
    label_row: int,
    mean_row: int,
    inverse_row: int,
    weight_row: int,
    entropy_row: int,
    classes: int,
    n: int,
) -> None:
    """What all classes of a voxel share: w (Σ p d − g_CE) / Σe to ``inverse_row``, w g_CE to ``entropy_row``."""
    g, y, mean = floats(g_entropy), int32s(label_row), floats(mean_row)
    inverse, w, of_entropy = floats(inverse_row), floats(weight_row), floats(entropy_row)
    # Three loops, so that the look-up by label, which must not read beyond the classes, is alone in the first.
    for i in range(n):
        label = y[i]
        of_entropy[i] = g[label] if 0 <= label < classes else ZERO
    for i in range(n):
        inverse[i] *= w[i] * (mean[i] - of_entropy[i])
    for i in range(n):
        of_entropy[i] *= w[i]


@njit(**OPTIONS)
def _logit_gradient(
    row: int, e_row: int, shared_row: int, label_row: int, weight_row: int, entropy_row: int, k: Any, n: int
) -> None:
    """The gradient of one class's logits, w p d − w p (Σ p d − g_CE) − w r g_CE, over its p d."""
    t, e, shared, y = floats(row), floats(e_row), floats(shared_row), int32s(label_row)
    w, of_entropy = floats(weight_row), floats(entropy_row)
    for i in range(n):
        t[i] = w[i] * t[i] - e[i] * shared[i] - (of_entropy[i] if y[i] == k else ZERO)


@njit(**OPTIONS)
def write_gradient(job: Any, rows: Any, pitch: int, n: int, g: Any) -> None:
    """The gradient of a chunk's logits over the logits, from that of the sums, COLUMNS × K floats from ``g`` on.

    The same chain through the softmax as `rarevox.losses.sums.pieces.write_gradient`.
    """
    inverse, labels, weight, mean = rows[INVERSE], rows[LABEL], rows[WEIGHT], rows[MEAN_SLOPE]
    classes = job[CLASSES]
    step = FLOAT_BYTES * pitch
    grad_sums = floats(g)
    fill(mean, ZERO, n)
    for k in range(classes):
        of = (
            grad_sums[P * classes + k],
            grad_sums[PR * classes + k],
            grad_sums[PP * classes + k],
            grad_sums[PPR * classes + k],
        )
        _slopes(rows[E_ROWS] + k * step, inverse, labels, mean, rows[Z_ROWS] + k * step, np.int32(k), of, n)
    of_entropy = g + FLOAT_BYTES * CE * classes
    _shared_terms(of_entropy, labels, mean, inverse, weight, rows[OF_ENTROPY], classes, n)
    for k in range(classes):
        z, e = rows[Z_ROWS] + k * step, rows[E_ROWS] + k * step
        _logit_gradient(z, e, inverse, labels, weight, rows[OF_ENTROPY], np.int32(k), n)
