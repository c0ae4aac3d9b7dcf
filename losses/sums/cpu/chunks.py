"""How the compiled kernels load a chunk of voxels into scratch memory and store its gradient; needs Numba.

In the scratch memory the logits lie class by class as float32, the weights as float32 and the labels as int32, however
they lie in the volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.losses.sums.checks import LABEL_FRACTION, LABEL_HIGH, LABEL_LOW, WEIGHT_LOW, WEIGHT_SUM
from rarevox.losses.sums.cpu.job import (
    BFLOAT16,
    CHANNEL,
    GRADIENT_STRIDES,
    GROUPS,
    HEIGHT,
    IGNORED,
    IGNORING,
    INT16,
    INT32,
    INT64,
    LABEL_KIND,
    LABELS,
    LINE,
    LOGIT_STRIDES,
    LOGITS,
    PLANE,
    SAMPLE,
    UINT8,
    VOXEL,
    WEIGHT,
    WIDTH,
)
from rarevox.losses.sums.cpu.numbers import (
    FLOAT_BYTES,
    INFINITY,
    ONE,
    ZERO,
    floats,
    from_bfloat16,
    int16s,
    int32s,
    int64s,
    to_bfloat16,
    uint8s,
    uint16s,
)

# Below it a float32 can be converted to an int32; the conversion of what int32 does not hold is undefined.
_CONVERTIBLE_BELOW = np.float32(2**30)
# "reassoc" lets LLVM add in any order, without which a sum is no vector loop; "nnan" and "ninf" are left out, as NaN
# and infinities must be seen. The wrappers would be compiled too, and nobody calls these functions from Python or C.
OPTIONS: Any = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


@njit(**OPTIONS)
def _load(source: int, step: int, half: bool, row: int, count: int) -> None:
    """``count`` logits from every ``step``-th place of the volume, in bfloat16 if ``half``, to a row of floats."""
    target = floats(row)
    if half:
        bits = uint16s(source)
        for i in range(count):
            target[i] = from_bfloat16(bits[i * step])
    elif step == 1:  # a loop of its own: neighbours are loaded as vectors, steps of unknown length are not
        values = floats(source)
        for i in range(count):
            target[i] = values[i]
    else:
        values = floats(source)
        for i in range(count):
            target[i] = values[i * step]


@njit(**OPTIONS)
def _store(row: int, target: int, step: int, half: bool, count: int) -> None:
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
    """Load the rows of a chunk from the logits, or store them to their gradient, line by line of the volume.

    Args:
        job: see `rarevox.losses.sums.cpu.job`.
        which: LOGITS or GRADIENT.
        rows: the address of the first row in the scratch memory.
        pitch: floats from row to row.
        channels: rows.
        place: (problem, first voxel, voxels).
    """
    problem, first, count = place
    height, width, groups = job[HEIGHT], job[WIDTH], job[GROUPS]
    half = job[BFLOAT16] != 0
    size = 2 if half else FLOAT_BYTES
    strides = LOGIT_STRIDES if which == LOGITS else GRADIENT_STRIDES
    step = job[strides + VOXEL]
    base = problem // groups * job[strides + SAMPLE] + problem % groups * job[strides + CHANNEL]
    done = 0
    # Voxels are numbered through the volume; in a crop or with transposed axes a step is the same only within a line.
    while done < count:
        line, x = (first + done) // width, (first + done) % width
        length = min(width - x, count - done)
        offset = base + line // height * job[strides + PLANE] + line % height * job[strides + LINE] + x * step
        for c in range(channels):
            outside = job[which] + size * (offset + c * job[strides + CHANNEL])
            inside = rows + FLOAT_BYTES * (c * pitch + done)
            if which == LOGITS:
                _load(outside, step, half, inside, length)
            else:
                _store(inside, outside, step, half, length)
        done += length


@njit(**OPTIONS)
def fill(row: int, value: Any, n: int) -> None:
    """``value`` in the ``n`` float32 places at the address ``row``."""
    target = floats(row)
    for i in range(n):
        target[i] = value


@njit(**OPTIONS)
def load_weights(job: Any, row: int, first: int, n: int, seen: Any) -> None:
    """The weights of a chunk, 1 where there are none."""
    if job[WEIGHT] == 0:
        fill(row, ONE, n)
        return
    source, target = floats(job[WEIGHT] + FLOAT_BYTES * first), floats(row)
    low, total = INFINITY, ZERO
    for i in range(n):
        w = source[i]
        target[i] = w
        low = w if w < low else low
        total += w
    seen[WEIGHT_LOW] = min(seen[WEIGHT_LOW], low)
    seen[WEIGHT_SUM] += total


@njit(**OPTIONS)
def _convert_labels(labels: Any, job: Any, row: int, weight: int, n: int, seen: Any) -> None:
    """The labels of a chunk as int32; those that are ignored are class 0 of weight 0."""
    y, w = int32s(row), floats(weight)
    ignored, plain = job[IGNORED], job[IGNORING] == 0
    low, high = np.int64(0), np.int64(0)  # 0 is a label that any volume may have
    # Extremes are those of the int64, so that a label that int32 does not hold is seen before it wraps around.
    for i in range(n):
        label = np.int64(labels[i])
        counted = (label != ignored) | plain
        label = label if counted else np.int64(0)
        low, high = min(low, label), max(high, label)
        y[i] = np.int32(label)
    if not plain:  # a loop of its own, which jobs that ignore no label are spared
        for i in range(n):
            w[i] *= ONE if np.int64(labels[i]) != ignored else ZERO
    seen[LABEL_LOW] = min(seen[LABEL_LOW], np.float64(low))
    seen[LABEL_HIGH] = max(seen[LABEL_HIGH], np.float64(high))


@njit(**OPTIONS)
def _fractions(labels: Any, n: int, seen: Any) -> None:
    """How far labels in float32 are from whole numbers; infinite where one is no number that an int32 holds."""
    worst = ZERO
    for i in range(n):
        value = labels[i]
        held = abs(value) < _CONVERTIBLE_BELOW
        distance = abs(value - np.float32(np.int32(value))) if held else INFINITY
        worst = max(worst, distance)
    seen[LABEL_FRACTION] = max(seen[LABEL_FRACTION], np.float64(worst))


@njit(**OPTIONS)
def load_labels(job: Any, row: int, weight: int, first: int, n: int, seen: Any) -> None:
    """The labels of a chunk, of whatever type; weight 0 where they are to be ignored, and their extremes."""
    kind, start = job[LABEL_KIND], job[LABELS]
    if kind == UINT8:
        _convert_labels(uint8s(start + first), job, row, weight, n, seen)
    elif kind == INT16:
        _convert_labels(int16s(start + 2 * first), job, row, weight, n, seen)
    elif kind == INT32:
        _convert_labels(int32s(start + 4 * first), job, row, weight, n, seen)
    elif kind == INT64:
        _convert_labels(int64s(start + 8 * first), job, row, weight, n, seen)
    else:
        _fractions(floats(start + 4 * first), n, seen)
        _convert_labels(floats(start + 4 * first), job, row, weight, n, seen)
