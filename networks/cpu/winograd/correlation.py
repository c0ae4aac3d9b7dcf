"""The compiled kernel of the weights' gradient: the transposed algorithm, in Winograd's domain.

A tile is y = SYNTHESIS ((FILTER g) ⊙ (ANALYSIS d)), so the gradient of g is FILTERᵀ Σ (ANALYSIS d) ⊙ (SYNTHESISᵀ ∂y), a
sum over all tiles: for each of the 216 places a product (C, tiles) · (tiles, C'). What is left, FILTERᵀ, is
`rarevox.networks.cpu.winograd.filters.carry_gradient`. Needs Numba.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import jobs, matrices, sizes, vectors
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader
from rarevox.networks.cpu.instructions.matrices import product
from rarevox.networks.cpu.instructions.sizes import BLOCK_ROWS, FLOAT_BYTES, LANES, PANEL
from rarevox.networks.cpu.instructions.vectors import in_eights
from rarevox.networks.cpu.winograd import analysis, domain, scratch, toom_cook
from rarevox.networks.cpu.winograd import job as winograd_job
from rarevox.networks.cpu.winograd.analysis import spread
from rarevox.networks.cpu.winograd.domain import (
    byte_strides,
    corner_of,
    into_domain,
    place_stride,
    tile_counts,
)
from rarevox.networks.cpu.winograd.job import Correlate
from rarevox.networks.cpu.winograd.scratch import make_scratch
from rarevox.networks.cpu.winograd.toom_cook import PLACES

_FOUR = 4
_add_6x16, _add_6x8 = product(BLOCK_ROWS, 2, add=True), product(BLOCK_ROWS, 1, add=True)
_add_4x16, _add_4x8 = product(_FOUR, 2, add=True), product(_FOUR, 1, add=True)
_correlate_job = job_reader(Correlate)

_SOURCES = (analysis, counter, domain, jobs, matrices, scratch, sizes, toom_cook, vectors, winograd_job)
_STAMP = source_stamp(*_SOURCES)


@njit(nogil=True, error_model="numpy")
def _add_products(a: int, b: int, c: int, tiles: int, rows: int, columns: int) -> None:
    """c (rows, columns) += aᵀ b for a (tiles, rows) and b (tiles, columns), rows and columns multiples of 8."""
    a_stride, b_stride = FLOAT_BYTES * rows, FLOAT_BYTES * columns
    for n in range(0, columns, PANEL):
        m = 0
        while m < rows:
            left, right, out = a + FLOAT_BYTES * m, b + FLOAT_BYTES * n, c + m * b_stride + FLOAT_BYTES * n
            six = rows - m != 4 and rows - m != 8  # a multiple of 8 is a sum of sixes and at most two fours
            if six and n + PANEL <= columns:
                _add_6x16(left, FLOAT_BYTES, a_stride, right, b_stride, out, b_stride, tiles)
            elif six:
                _add_6x8(left, FLOAT_BYTES, a_stride, right, b_stride, out, b_stride, tiles)
            elif n + PANEL <= columns:
                _add_4x16(left, FLOAT_BYTES, a_stride, right, b_stride, out, b_stride, tiles)
            else:
                _add_4x8(left, FLOAT_BYTES, a_stride, right, b_stride, out, b_stride, tiles)
            m += BLOCK_ROWS if six else _FOUR


@njit(nogil=True, error_model="numpy")
def _gradient_into_domain(job: Any, start: int, tiles: int, scratch: int, after: int, place_stride: int) -> None:
    """The output's gradient at the tiles from number ``start`` on to the domain at ``after``."""
    shape, counts = (job.out_depth, job.out_height, job.out_width), tile_counts(job)
    strides, out_rounded = byte_strides(shape, job.out_channels), in_eights(job.out_channels)
    for tile in range(tiles):
        sample, corner = corner_of(start + tile, counts)
        volume = job.gradient + sample * strides[3]
        end = volume + strides[3]
        for c in range(0, job.out_channels, LANES):
            out, lanes = after + FLOAT_BYTES * (tile * out_rounded + c), min(LANES, job.out_channels - c)
            spread(volume + FLOAT_BYTES * c, end, corner, shape, strides, lanes, scratch, out, place_stride)


@njit(nogil=True, error_model="numpy")
def _correlate(pointer: Any) -> None:
    job, next_slot = _correlate_job(pointer)
    in_rounded, out_rounded = in_eights(job.in_channels), in_eights(job.out_channels)
    stride_before = place_stride(FLOAT_BYTES * in_rounded, job.group)
    stride_after = place_stride(FLOAT_BYTES * out_rounded, job.group)
    sums_stride = FLOAT_BYTES * in_rounded * out_rounded
    # Two sets of buffers: the mask of the channels left over is that of the volume they are read from.
    buffers, buffers_out = make_scratch(job.in_channels), make_scratch(job.out_channels)
    own, own_out = buffers.ctypes.data, buffers_out.ctypes.data
    while True:
        slot = take_next(next_slot)
        if slot >= job.slots:
            return
        before = job.domain + slot * job.domain_bytes
        after = before + PLACES * stride_before
        sums = job.sums + slot * PLACES * sums_stride
        for start in range(slot * job.group, job.tiles, job.slots * job.group):
            tiles = min(job.group, job.tiles - start)
            into_domain(job, start, tiles, own, before, stride_before)
            _gradient_into_domain(job, start, tiles, own_out, after, stride_after)
            for place in range(PLACES):
                a, b = before + place * stride_before, after + place * stride_after
                _add_products(a, b, sums + place * sums_stride, tiles, in_rounded, out_rounded)


@cfunc(KERNEL, cache=True, error_model="numpy")
def correlate(pointer: Any) -> None:
    """Sums (slots, 216, C, C') += tiles of a volume, transposed, times tiles of a gradient (`Correlate`).

    Slot s takes the groups s, s + slots, … in this order, so the sums do not depend on the threads' pace.
    """
    _ = _STAMP
    _correlate(pointer)
