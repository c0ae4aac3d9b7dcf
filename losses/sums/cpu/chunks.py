"""How the compiled kernels bring a chunk of voxels into scratch memory and its gradient back; needs Numba.

In the scratch memory the logits lie class by class as float32, the weights as float32 and the labels as int32, however
they lie in the volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.losses.sums.cpu.job import (
    GRADIENT_STRIDES,
    GROUPS,
    HALF_PRECISION,
    HEIGHT,
    IGNORED,
    IGNORING,
    INT16,
    INT32,
    INT64,
    LABEL_KIND,
    LABELS,
    LOGIT_STRIDES,
    LOGITS,
    UINT8,
    WEIGHT,
    WIDTH,
)
from rarevox.losses.sums.cpu.numbers import (
    floats,
    from_bfloat16,
    int16s,
    int32s,
    int64s,
    to_bfloat16,
    uint8s,
    uint16s,
)

_ZERO, _ONE = np.float32(0), np.float32(1)
_INFINITY = np.float32(np.inf)
_WHOLE_BELOW = np.float32(2**30)
# Sums may be made in any order, but NaN and infinities must be seen.
OPTIONS: Any = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


@njit(**OPTIONS)
def _bring(source: int, step: int, half: bool, row: int, count: int) -> None:
    """``count`` logits from every ``step``-th place of the volume, in bfloat16 if ``half``, to a row of floats."""
    target = floats(row)
    if half:
        bits = uint16s(source)
        for i in range(count):
            target[i] = from_bfloat16(bits[i * step])
    elif step == 1:
        values = floats(source)
        for i in range(count):
            target[i] = values[i]
    else:
        values = floats(source)
        for i in range(count):
            target[i] = values[i * step]


@njit(**OPTIONS)
def _put(row: int, target: int, step: int, half: bool, count: int) -> None:
    """A row of floats to every ``step``-th place of the volume, in bfloat16 if ``half``."""
    values = floats(row)
    if half:
        bits = uint16s(target)
        for i in range(count):
            bits[i * step] = to_bfloat16(values[i])
    elif step == 1:
        places = floats(target)
        for i in range(count):
            places[i] = values[i]
    else:
        places = floats(target)
        for i in range(count):
            places[i * step] = values[i]


@njit(**OPTIONS)
def move(job: Any, which: int, rows: int, pitch: int, channels: int, place: Any) -> None:
    """The rows of a chunk from the logits, or to their gradient, line by line of the volume.

    Args:
        job: see above.
        which: LOGITS or GRADIENT.
        rows: the address of the first row in the scratch memory.
        pitch: floats from row to row.
        channels: rows.
        place: (problem, first voxel, voxels).
    """
    problem, first, count = place
    height, width, groups = job[HEIGHT], job[WIDTH], job[GROUPS]
    half = job[HALF_PRECISION] != 0
    size = 2 if half else 4
    strides = LOGIT_STRIDES if which == LOGITS else GRADIENT_STRIDES
    step = job[strides + 4]
    base = problem // groups * job[strides] + problem % groups * job[strides + 1]
    done = 0
    while done < count:
        line, x = (first + done) // width, (first + done) % width
        length = min(width - x, count - done)
        offset = base + line // height * job[strides + 2] + line % height * job[strides + 3] + x * step
        for c in range(channels):
            outside = job[which] + size * (offset + c * job[strides + 1])
            inside = rows + 4 * (c * pitch + done)
            if which == LOGITS:
                _bring(outside, step, half, inside, length)
            else:
                _put(inside, outside, step, half, length)
        done += length


@njit(**OPTIONS)
def fill(row: int, value: Any, n: int) -> None:
    """``value`` in the ``n`` float32 places at the address ``row``."""
    target = floats(row)
    for i in range(n):
        target[i] = value


@njit(**OPTIONS)
def bring_weights(job: Any, row: int, first: int, n: int, seen: Any) -> None:
    """The weights of a chunk, 1 where there are none."""
    if job[WEIGHT] == 0:
        fill(row, _ONE, n)
        return
    source, target = floats(job[WEIGHT] + 4 * first), floats(row)
    low, total = _INFINITY, _ZERO
    for i in range(n):
        w = source[i]
        target[i] = w
        low = w if w < low else low
        total += w
    seen[4] = min(seen[4], low)
    seen[5] += total


@njit(**OPTIONS)
def _take_labels(labels: Any, job: Any, row: int, weight: int, n: int, seen: Any) -> None:
    """The labels of a chunk as int32; those that are ignored are class 0 of weight 0."""
    y, w = int32s(row), floats(weight)
    ignored, plain = job[IGNORED], job[IGNORING] == 0
    low, high = np.int64(0), np.int64(0)
    for i in range(n):
        label = np.int64(labels[i])
        counted = (label != ignored) | plain
        label = label if counted else np.int64(0)
        low, high = min(low, label), max(high, label)
        y[i] = np.int32(label)
    if not plain:
        for i in range(n):
            w[i] *= _ONE if np.int64(labels[i]) != ignored else _ZERO
    seen[1], seen[2] = min(seen[1], np.float64(low)), max(seen[2], np.float64(high))


@njit(**OPTIONS)
def _fractions(labels: Any, n: int, seen: Any) -> None:
    """How far labels in float32 are from whole numbers; infinite where one is no number that an int32 holds."""
    worst = _ZERO
    for i in range(n):
        value = labels[i]
        held = abs(value) < _WHOLE_BELOW
        distance = abs(value - np.float32(np.int32(value))) if held else _INFINITY
        worst = max(worst, distance)
    seen[3] = max(seen[3], np.float64(worst))


@njit(**OPTIONS)
def bring_labels(job: Any, row: int, weight: int, first: int, n: int, seen: Any) -> None:
    """The labels of a chunk, of whatever type; weight 0 where they are to be ignored, and their extremes."""
    kind, start = job[LABEL_KIND], job[LABELS]
    if kind == UINT8:
        _take_labels(uint8s(start + first), job, row, weight, n, seen)
    elif kind == INT16:
        _take_labels(int16s(start + 2 * first), job, row, weight, n, seen)
    elif kind == INT32:
        _take_labels(int32s(start + 4 * first), job, row, weight, n, seen)
    elif kind == INT64:
        _take_labels(int64s(start + 8 * first), job, row, weight, n, seen)
    else:
        _fractions(floats(start + 4 * first), n, seen)
        _take_labels(floats(start + 4 * first), job, row, weight, n, seen)
