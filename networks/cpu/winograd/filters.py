"""Compiled jobs that take weights into Winograd's domain and bring their gradient back.

Compiled by Numba when first used and cached on disk; importing this module without Numba raises ImportError. Jobs are
those of `rarevox.networks.cpu.winograd.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import matrices, vectors
from rarevox.networks.cpu.instructions.matrices import linear_map
from rarevox.networks.cpu.instructions.vectors import BYTES, LANES, add_vectors, copy_float, copy_vector
from rarevox.networks.cpu.winograd import toom_cook
from rarevox.networks.cpu.winograd.toom_cook import FILTER

PLACES, PANEL = 216, 16
PANEL_BYTES = 4 * PANEL
_carry, _carry_back = linear_map(FILTER), linear_map(FILTER.T)

_JOB = types.void(types.CPointer(types.int64))
_STAMP = source_stamp(counter, matrices, toom_cook, vectors)


@njit(nogil=True, error_model="numpy")
def _carry_filters(job: Any) -> None:
    weight, filters, columns, channels = job[0], job[1], job[2], job[3]
    pitches = (job[4], job[5], job[6], job[7], job[8])
    deep, panels = -(-channels // LANES) * LANES, -(-columns // PANEL)
    buffers = np.zeros((27 + 216 + 216) * PANEL, np.float32)
    taps = buffers.ctypes.data
    a = taps + 27 * PANEL_BYTES
    b = a + 216 * PANEL_BYTES
    while True:
        piece = take_next(job[9])
        if piece >= panels * deep:
            return
        panel, c = piece // deep, piece % deep
        buffers[: 27 * PANEL] = 0
        for lane in range(min(PANEL, columns - panel * PANEL) if c < channels else 0):
            first = weight + (panel * PANEL + lane) * pitches[0] + c * pitches[1]
            for tap in range(27):
                place = first + tap // 9 * pitches[2] + tap // 3 % 3 * pitches[3] + tap % 3 * pitches[4]
                copy_float(place, taps + tap * PANEL_BYTES + 4 * lane)
        out = filters + (panel * PLACES * deep + c) * PANEL_BYTES
        for half in (0, BYTES):
            for row in range(9):
                _carry(taps + half + row * 3 * PANEL_BYTES, PANEL_BYTES, a + row * 6 * BYTES, BYTES)
            for z in range(3):
                for x in range(6):
                    _carry(a + (z * 18 + x) * BYTES, 6 * BYTES, b + (z * 36 + x) * BYTES, 6 * BYTES)
            pitch = deep * PANEL_BYTES
            for k in range(36):
                _carry(b + k * BYTES, 36 * BYTES, out + half + k * pitch, 36 * pitch)


@cfunc(_JOB, cache=True, error_model="numpy")
def carry_filters(job: Any) -> None:
    """Weights (C', C, 3, 3, 3) with any strides to filters (panels, 216, C in eights, 16), an input channel a piece.

    The job: addresses of both, C', C, the five strides in bytes.
    """
    _ = _STAMP
    _carry_filters(job)


@njit(nogil=True, error_model="numpy")
def _carry_gradient(job: Any) -> None:
    sums, weight, slots, channels, columns = job[0], job[1], job[2], job[3], job[4]
    deep, wide = -(-channels // LANES) * LANES, -(-columns // LANES) * LANES
    pitch = deep * wide * 4
    buffers = np.zeros(2 * 216 * LANES, np.float32)
    a = buffers.ctypes.data
    b = a + 216 * BYTES
    while True:
        piece = take_next(job[5])
        if piece >= channels * (wide // LANES):
            return
        c, first = piece // (wide // LANES), piece % (wide // LANES) * LANES
        for place in range(PLACES):
            source = sums + place * pitch + (c * wide + first) * 4
            copy_vector(source, a + place * BYTES)
            for slot in range(1, slots):
                add_vectors(source + slot * PLACES * pitch, a + place * BYTES, a + place * BYTES)
        for row in range(36):
            _carry_back(a + row * 6 * BYTES, BYTES, b + row * 3 * BYTES, BYTES)
        for z in range(6):
            for x in range(3):
                _carry_back(b + (z * 18 + x) * BYTES, 3 * BYTES, a + (z * 9 + x) * BYTES, 3 * BYTES)
        for k in range(9):
            _carry_back(a + k * BYTES, 9 * BYTES, b + k * BYTES, 9 * BYTES)
        for lane in range(min(LANES, columns - first)):
            out = weight + ((first + lane) * channels + c) * 27 * 4
            for tap in range(27):
                copy_float(b + tap * BYTES + 4 * lane, out + 4 * tap)


@cfunc(_JOB, cache=True, error_model="numpy")
def carry_gradient(job: Any) -> None:
    """Sums (slots, 216, C in eights, C' in eights), added up, to a weight's gradient (C', C, 3, 3, 3).

    The job: addresses of both, slots, C, C'. A piece is one input channel and eight output channels.
    """
    _ = _STAMP
    _carry_gradient(job)
