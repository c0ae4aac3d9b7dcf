"""Weights into Winograd's domain, and their gradient back from it.

A filter g of 3³ taps enters as (FILTER ⊗ FILTER ⊗ FILTER) g, 216 numbers, one for each place of the domain; its
gradient comes back through the transpose. Both go one axis after the other, 27 → 54 → 108 → 216 numbers, with eight
channels to a vector. Compiled by Numba when first used and cached on disk; importing this module without Numba raises
ImportError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import jobs, matrices, sizes, vectors
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader
from rarevox.networks.cpu.instructions.matrices import linear_map
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, PANEL, PANEL_BYTES, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import add_vectors, copy_float, copy_vector, in_eights
from rarevox.networks.cpu.winograd import job as winograd_job
from rarevox.networks.cpu.winograd import toom_cook
from rarevox.networks.cpu.winograd.job import CarryFilters, CarryGradient
from rarevox.networks.cpu.winograd.toom_cook import FILTER, PLACES, TAPS, WINDOW

_FACE, _ALL_TAPS = WINDOW**2, TAPS**3
_carry, _carry_back = linear_map(FILTER), linear_map(FILTER.T)
_filters_job, _gradient_job = job_reader(CarryFilters), job_reader(CarryGradient)

_SOURCES = (counter, jobs, matrices, sizes, toom_cook, vectors, winograd_job)
_STAMP = source_stamp(*_SOURCES)


@njit(nogil=True, error_model="numpy")
def _carry_filters(pointer: Any) -> None:
    job, next_piece = _filters_job(pointer)
    in_rounded, panels = in_eights(job.in_channels), -(-job.out_channels // PANEL)
    place_stride = in_rounded * PANEL_BYTES
    # The taps of sixteen output channels side by side, and two steps on their way.
    buffers = np.zeros((_ALL_TAPS + 2 * PLACES) * PANEL, np.float32)
    taps = buffers.ctypes.data
    a = taps + _ALL_TAPS * PANEL_BYTES
    b = a + PLACES * PANEL_BYTES
    while True:
        piece = take_next(next_piece)
        if piece >= panels * in_rounded:
            return
        panel, c = piece // in_rounded, piece % in_rounded
        # Channels that are there for whole vectors and panels alone have filters of zeros.
        buffers[: _ALL_TAPS * PANEL] = 0
        for lane in range(min(PANEL, job.out_channels - panel * PANEL) if c < job.in_channels else 0):
            first = job.weight + (panel * PANEL + lane) * job.out_stride_bytes + c * job.in_stride_bytes
            for tap in range(_ALL_TAPS):
                place = first + tap // TAPS**2 * job.depth_stride_bytes
                place += tap // TAPS % TAPS * job.height_stride_bytes + tap % TAPS * job.width_stride_bytes
                copy_float(place, taps + tap * PANEL_BYTES + FLOAT_BYTES * lane)
        out = job.filters + (panel * PLACES * in_rounded + c) * PANEL_BYTES
        for half in (0, VECTOR_BYTES):
            for row in range(TAPS**2):  # 3 × 3 × 3 to 3 × 3 × 6
                _carry(
                    taps + half + row * TAPS * PANEL_BYTES, PANEL_BYTES, a + row * WINDOW * VECTOR_BYTES, VECTOR_BYTES
                )
            for z in range(TAPS):  # to 3 × 6 × 6
                for x in range(WINDOW):
                    source = a + (z * TAPS * WINDOW + x) * VECTOR_BYTES
                    target = b + (z * _FACE + x) * VECTOR_BYTES
                    _carry(source, WINDOW * VECTOR_BYTES, target, WINDOW * VECTOR_BYTES)
            for k in range(_FACE):  # to 6 × 6 × 6
                target = out + half + k * place_stride
                _carry(b + k * VECTOR_BYTES, _FACE * VECTOR_BYTES, target, _FACE * place_stride)


@cfunc(KERNEL, cache=True, error_model="numpy")
def carry_filters(pointer: Any) -> None:
    """Weights to filters (`CarryFilters`); a piece is an input channel of a panel."""
    _ = _STAMP
    _carry_filters(pointer)


@njit(nogil=True, error_model="numpy")
def _carry_gradient(pointer: Any) -> None:
    job, next_piece = _gradient_job(pointer)
    in_rounded, out_rounded = in_eights(job.in_channels), in_eights(job.out_channels)
    place_stride = FLOAT_BYTES * in_rounded * out_rounded
    buffers = np.zeros(2 * PLACES * LANES, np.float32)
    a = buffers.ctypes.data
    b = a + PLACES * VECTOR_BYTES
    while True:
        piece = take_next(next_piece)
        if piece >= job.in_channels * (out_rounded // LANES):
            return
        c, first = piece // (out_rounded // LANES), piece % (out_rounded // LANES) * LANES
        # Slot by slot in their order: the total does not depend on which thread was faster.
        sums = job.sums + (c * out_rounded + first) * FLOAT_BYTES
        for place in range(PLACES):
            copy_vector(sums + place * place_stride, a + place * VECTOR_BYTES)
        for _ in range(1, job.slots):
            sums += PLACES * place_stride
            for place in range(PLACES):
                total = a + place * VECTOR_BYTES
                add_vectors(sums + place * place_stride, total, total)
        for row in range(_FACE):  # 6 × 6 × 6 to 6 × 6 × 3
            _carry_back(a + row * WINDOW * VECTOR_BYTES, VECTOR_BYTES, b + row * TAPS * VECTOR_BYTES, VECTOR_BYTES)
        for z in range(WINDOW):  # to 6 × 3 × 3
            for x in range(TAPS):
                source = b + (z * WINDOW * TAPS + x) * VECTOR_BYTES
                target = a + (z * TAPS**2 + x) * VECTOR_BYTES
                _carry_back(source, TAPS * VECTOR_BYTES, target, TAPS * VECTOR_BYTES)
        for k in range(TAPS**2):  # to 3 × 3 × 3
            _carry_back(a + k * VECTOR_BYTES, TAPS**2 * VECTOR_BYTES, b + k * VECTOR_BYTES, TAPS**2 * VECTOR_BYTES)
        for lane in range(min(LANES, job.out_channels - first)):
            out = job.gradient + ((first + lane) * job.in_channels + c) * _ALL_TAPS * FLOAT_BYTES
            for tap in range(_ALL_TAPS):
                copy_float(b + tap * VECTOR_BYTES + FLOAT_BYTES * lane, out + FLOAT_BYTES * tap)


@cfunc(KERNEL, cache=True, error_model="numpy")
def carry_gradient(pointer: Any) -> None:
    """Sums of all slots, added up, to a weight's gradient (`CarryGradient`).

    A piece is one input channel and eight output channels.
    """
    _ = _STAMP
    _carry_gradient(pointer)
