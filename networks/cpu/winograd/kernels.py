"""The compiled kernels of Winograd's convolution; here the convolution itself.

A thread takes a group of tiles of all channels into Winograd's domain, multiplies them there and brings them back
before it takes the next ones, so that they never leave its second-level cache::

    volume  ──analyse──▶  216 × (tiles, C)  ──products──▶  216 × (tiles, 16)  ──synthesise──▶  volume
            prologue:      "before"          × filters      "after", a panel     epilogue:
            norm, activation                216 × (C, 16)   at a time            bias, activation, sum

Compiled by Numba when first used and cached on disk; importing this module without Numba raises ImportError. Jobs are
those of `rarevox.networks.cpu.winograd.job`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import jobs, matrices, sizes, vectors
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader
from rarevox.networks.cpu.instructions.matrices import product
from rarevox.networks.cpu.instructions.sizes import (
    BLOCK_ROWS,
    FLOAT_BYTES,
    LANES,
    PANEL,
    PANEL_BYTES,
    VECTOR_BYTES,
)
from rarevox.networks.cpu.instructions.vectors import WIDE, in_eights, prefetch
from rarevox.networks.cpu.winograd import analysis, correlation, domain, filters, scratch, synthesis, toom_cook
from rarevox.networks.cpu.winograd import job as winograd_job
from rarevox.networks.cpu.winograd.correlation import correlate
from rarevox.networks.cpu.winograd.domain import (
    byte_strides,
    corner_of,
    extent_of,
    into_domain,
    place_stride,
    tile_counts,
)
from rarevox.networks.cpu.winograd.filters import carry_filters, carry_gradient
from rarevox.networks.cpu.winograd.job import Convolve
from rarevox.networks.cpu.winograd.scratch import make_scratch
from rarevox.networks.cpu.winograd.synthesis import stream_whole, synthesise
from rarevox.networks.cpu.winograd.toom_cook import PLACES, TILE

__all__ = ["carry_filters", "carry_gradient", "convolve", "correlate"]

_VOXELS = TILE**3
# A panel in one register of AVX-512 leaves room for the sums of twice the tiles: 195 to 210 GFLOP/s with 16 to 64
# channels in place of 123 to 129 (one core of an AMD EPYC 9005), to the bit the same.
_product_16 = product(BLOCK_ROWS, 1, lanes=PANEL) if WIDE else product(BLOCK_ROWS, 2)
_product_16_twice = product(2 * BLOCK_ROWS, 1, lanes=PANEL)
_product_8 = product(BLOCK_ROWS, 1)
_product_8_twice = product(2 * BLOCK_ROWS, 1)
_convolve_job = job_reader(Convolve)

_SOURCES = (
    *(analysis, correlation, counter, domain, filters, jobs, matrices, scratch, sizes, synthesis, toom_cook, vectors),
    winograd_job,
)
_STAMP = source_stamp(*_SOURCES)


@njit(nogil=True, error_model="numpy")
def _add_strides(job: Any) -> Any:
    """`byte_strides` of what is added, which may be a box out of a larger volume."""
    return (
        FLOAT_BYTES * job.add_voxel_stride,
        FLOAT_BYTES * job.add_row_stride,
        FLOAT_BYTES * job.add_plane_stride,
        FLOAT_BYTES * job.add_sample_stride,
    )


@njit(nogil=True, error_model="numpy")
def _products(a: int, b: int, c: int, tiles: int, channels: int, columns: int) -> None:
    """c (tiles in sixes, 16) = a (tiles, C in eights) · b (C in eights, 16), of which so many columns count."""
    # Not by `in_eights`: LLVM then keeps less of this function in registers, and with few channels it is felt.
    row = -(-channels // LANES) * VECTOR_BYTES
    m = 0
    while m < tiles:
        left, out = a + m * row, c + m * PANEL_BYTES
        if columns > LANES and WIDE and m + BLOCK_ROWS < tiles:
            _product_16_twice(left, row, FLOAT_BYTES, b, PANEL_BYTES, out, PANEL_BYTES, channels)
            m += BLOCK_ROWS
        elif columns > LANES:
            _product_16(left, row, FLOAT_BYTES, b, PANEL_BYTES, out, PANEL_BYTES, channels)
        elif m + BLOCK_ROWS < tiles:
            # One vector of weights at a time leaves registers for the sums of twice the tiles.
            _product_8_twice(left, row, FLOAT_BYTES, b, PANEL_BYTES, out, PANEL_BYTES, channels)
            m += BLOCK_ROWS
        else:
            _product_8(left, row, FLOAT_BYTES, b, PANEL_BYTES, out, PANEL_BYTES, channels)
        m += BLOCK_ROWS


@njit(nogil=True, error_model="numpy")
def _prefetch_add(place: int, tiles: int, blocks: Any, strides: Any, add: int) -> None:
    """Prefetch a 216th of the cache lines that hold what is added to a panel's 4³ voxels a tile.

    So they come evenly with the products of the 216 places, and are there when the tiles leave the domain.
    """
    lines = tiles * _VOXELS
    for line in range(place * lines // PLACES, (place + 1) * lines // PLACES):
        z, y, x = line // TILE**2 % TILE, line // TILE % TILE, line % TILE
        prefetch(add + blocks[line // _VOXELS] + z * strides[2] + y * strides[1] + x * strides[0])


@njit(nogil=True, error_model="numpy")
def _out_of_domain(job: Any, first: int, start: int, tiles: int, after: int, place_stride: int, scratch: int) -> None:
    """The channels from ``first`` on, at most sixteen, of some tiles at ``after`` to the volume, with the epilogue."""
    shape, counts, add_strides = (job.out_depth, job.out_height, job.out_width), tile_counts(job), _add_strides(job)
    strides, out_rounded = byte_strides(shape, job.out_stride), in_eights(job.out_channels)
    # Whole vectors are written where the voxels have room for them, here and in what is added.
    add_rounded = job.add == 0 or add_strides[0] >= FLOAT_BYTES * in_eights(job.add_channels)
    writable = out_rounded if job.out_stride >= out_rounded and add_rounded else job.out_channels
    eights = 2 if job.out_channels - first > LANES else 1
    add_last = job.add_first + job.add_channels
    has = (job.add_first <= first < add_last, job.add_first <= first + LANES < add_last)
    for tile in range(tiles):
        sample, (z, y, x) = corner_of(start + tile, counts)
        extent = extent_of(job.extents, sample, shape)
        volume, own = job.target + sample * strides[3] + FLOAT_BYTES * first, after + tile * PANEL_BYTES
        pair = job.bias + first // LANES * 2 * VECTOR_BYTES if job.bias != 0 else 0
        add = job.add + sample * add_strides[3] + FLOAT_BYTES * (first - job.add_first)
        adds = (add if has[0] else 0, add + VECTOR_BYTES if has[1] else 0)
        if job.stream and z + TILE <= extent[0] and y + TILE <= extent[1] and x + TILE <= extent[2]:
            voxel = volume + z * strides[2] + y * strides[1] + x * strides[0]
            offset = z * add_strides[2] + y * add_strides[1] + x * add_strides[0]
            adds = (adds[0] + offset if has[0] else 0, adds[1] + offset if has[1] else 0)
            stream_whole(own, place_stride, pair, voxel, strides, eights, scratch, adds, add_strides)
            continue
        for eight in range(eights):
            lanes, add = min(LANES, writable - first - eight * LANES), adds[eight]
            synthesise(
                own,
                place_stride,
                pair,
                volume,
                (z, y, x),
                shape,
                extent,
                strides,
                lanes,
                scratch,
                add,
                add_strides,
            )
            own, volume, pair = own + VECTOR_BYTES, volume + VECTOR_BYTES, pair + 2 * VECTOR_BYTES if pair != 0 else 0


@njit(nogil=True, error_model="numpy")
def _convolve(pointer: Any) -> None:
    job, next_group = _convolve_job(pointer)
    in_rounded, counts, add_strides = in_eights(job.in_channels), tile_counts(job), _add_strides(job)
    stride_before = place_stride(FLOAT_BYTES * in_rounded, job.group)
    stride_after = place_stride(PANEL_BYTES, job.group)
    # Each call of this function is a thread and takes memory of its own, wherever it runs.
    before = job.domain + take_next(job.threads) * job.domain_bytes
    after = before + PLACES * stride_before
    buffers, blocks = make_scratch(job.in_channels), np.zeros(job.group, np.int64)
    own = buffers.ctypes.data
    while True:
        start = take_next(next_group) * job.group
        if start >= job.tiles:
            return
        tiles = min(job.group, job.tiles - start)
        into_domain(job, start, tiles, own, before, stride_before)
        for tile in range(tiles):
            sample, (z, y, x) = corner_of(start + tile, counts)
            blocks[tile] = sample * add_strides[3] + z * add_strides[2] + y * add_strides[1] + x * add_strides[0]
        # A panel of 16 output channels at a time leaves the domain, so that "after" takes 216 · tiles · 64 bytes
        # however many channels there are.
        for first in range(0, job.out_channels, PANEL):
            panel = job.filters + first // PANEL * PLACES * in_rounded * PANEL_BYTES
            for place in range(PLACES):
                if job.add_first - PANEL < first < job.add_first + job.add_channels:
                    _prefetch_add(place, tiles, blocks, add_strides, job.add + FLOAT_BYTES * (first - job.add_first))
                a, c = before + place * stride_before, after + place * stride_after
                b = panel + place * in_rounded * PANEL_BYTES
                _products(a, b, c, tiles, job.in_channels, job.out_channels - first)
            _out_of_domain(job, first, start, tiles, after, stride_after, own)


@cfunc(KERNEL, cache=True, error_model="numpy")
def convolve(pointer: Any) -> None:
    """Tiles of the output, a group at a time (`Convolve`).

    What a thread writes past the caches is in memory when it takes its next piece, which is a locked instruction.
    """
    _ = _STAMP
    _convolve(pointer)
