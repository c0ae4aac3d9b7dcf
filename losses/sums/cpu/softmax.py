"""A chunk of voxels in scratch memory, row by row, and its softmax; needs Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.losses.sums.cpu.chunks import OPTIONS, fill
from rarevox.losses.sums.cpu.numbers import FLOAT_BYTES, INFINITY, ONE, ZERO, exponential, floats, larger

# Voxels of a chunk at most, and floats of its logits: these and their exponentials, 40 KiB, stay in a core's caches,
# and a float32 sum of a chunk has few enough terms a lane for an error of 1e-7 or so (1e-6 on a CPU without vectors).
PITCH = 512
CHUNK_FLOATS = 5120
# A cache line. Chunks are whole lines long, so that each row begins at one.
LINE_FLOATS = 16
LINE_BYTES = LINE_FLOATS * FLOAT_BYTES

# The rows of the scratch memory, by their addresses: K logits and K exponentials, then one row each. Two of these are
# used again in the backward pass, after the softmax: the maximum's for w g_CE, the denominator's for Σ p d.
ROWS = 7
Z_ROWS, E_ROWS, MAXIMUM, TOTAL, INVERSE, LABEL, WEIGHT = range(ROWS)
OF_ENTROPY, MEAN_SLOPE = MAXIMUM, TOTAL


@njit(**OPTIONS)
def row_sum(row: int, n: int) -> Any:
    """The sum of a row of float32."""
    values = floats(row)
    total = ZERO
    for i in range(n):
        total += values[i]
    return total


@njit(**OPTIONS)
def _raise_maximum(highest: int, row: int, n: int) -> None:
    """``highest`` to the logits of one class where these are higher."""
    z, m = floats(row), floats(highest)
    for i in range(n):
        m[i] = larger(z[i], m[i])


@njit(**OPTIONS)
def _exponentials(row: int, highest: int, total: int, out: int, n: int) -> None:
    """The logits of one class less the highest, in their place, and the exponentials of those.

    They stay for the cross-entropy: −log p = log Σe − (z − highest) holds where p itself has vanished.
    """
    z, m, s, e = floats(row), floats(highest), floats(total), floats(out)
    for i in range(n):
        below = z[i] - m[i]
        value = exponential(below)
        z[i] = below
        e[i] = value
        s[i] += value


@njit(**OPTIONS)
def _reciprocals(row: int, out: int, n: int) -> None:
    """One division a voxel; each probability then is a product, made anew where it is needed and never stored."""
    source, target = floats(row), floats(out)
    for i in range(n):
        target[i] = ONE / source[i]


@njit(**OPTIONS)
def softmax_rows(rows: Any, classes: int, pitch: int, n: int) -> Any:
    """Exponentials of a chunk, their sum over the classes and its reciprocal; gives the sum of the logits.

    That sum is NaN or infinite where a logit is, which is how such logits are found.
    """
    z, e = rows[Z_ROWS], rows[E_ROWS]
    fill(rows[MAXIMUM], -INFINITY, n)
    fill(rows[TOTAL], ZERO, n)
    logit_sum = np.float64(0)
    step = FLOAT_BYTES * pitch
    for k in range(classes):
        logit_sum += row_sum(z + k * step, n)  # in one loop with the next, LLVM would make no vectors of the two
        _raise_maximum(rows[MAXIMUM], z + k * step, n)
    for k in range(classes):
        _exponentials(z + k * step, rows[MAXIMUM], rows[TOTAL], e + k * step, n)
    _reciprocals(rows[TOTAL], rows[INVERSE], n)
    return logit_sum
