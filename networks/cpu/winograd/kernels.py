"""The compiled jobs of Winograd's convolution: filters into the domain, the convolution, and the filters' gradient.

A thread takes a few tiles of all channels into Winograd's domain, multiplies them there and brings them back before it
takes the next ones: they never leave its second-level cache. Compiled by Numba when first used and cached on disk;
importing this module without Numba raises ImportError.

Every job is an array of int64 whose last place is the address of the next piece of work (`rarevox.compiled.share_out`).
Volumes are float32, (B, D, H, W, C), voxels evenly apart (`rarevox.networks.cpu.volumes`); what is added may be a box
out of one. In the domain the channels are rounded up to eights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import matrices, vectors
from rarevox.networks.cpu.instructions.matrices import product
from rarevox.networks.cpu.instructions.vectors import BYTES, LANES, prefetch
from rarevox.networks.cpu.winograd import filters as winograd_filters
from rarevox.networks.cpu.winograd import tiles as winograd_tiles
from rarevox.networks.cpu.winograd import toom_cook
from rarevox.networks.cpu.winograd.filters import PANEL, PANEL_BYTES, PLACES, carry_filters, carry_gradient
from rarevox.networks.cpu.winograd.tiles import analyse, make_room, spread, stream_whole, synthesise

__all__ = ["carry_filters", "carry_gradient", "convolve", "correlate"]

TILE = 4
_LINE = 64
_INSIDE = 29  # where the job of a convolution tells what of each sample is inside
_FEW = 6  # tiles in one register block of a product
_RUN = 12  # tiles side by side whose columns are shared on the way into the domain, as long as a cache holds them

_product_16, _product_8, _product_8_twice = product(_FEW, 2), product(_FEW, 1), product(2 * _FEW, 1)
_added_6x16, _added_6x8 = product(6, 2, add=True), product(6, 1, add=True)
_added_4x16, _added_4x8 = product(4, 2, add=True), product(4, 1, add=True)


@njit(nogil=True, error_model="numpy")
def _odd(size: int) -> int:
    """So many bytes in an odd number of lines of the cache: the 216 places of a tile spread over all its sets."""
    return (-(-size // _LINE) | 1) * _LINE


@njit(nogil=True, error_model="numpy")
def _corner(number: int, counts: Any) -> Any:
    """Sample and first voxel of a tile of the output."""
    z, y, x = counts
    return number // (z * y * x), (number // (y * x) % z * TILE, number // x % y * TILE, number % x * TILE)


@njit(nogil=True, error_model="numpy")
def _pitches(sizes: Any, apart: int) -> Any:
    """Bytes from one voxel, line, plane and sample to the next, for voxels so many numbers apart."""
    voxel = 4 * apart
    return voxel, voxel * sizes[2], voxel * sizes[2] * sizes[1], voxel * sizes[2] * sizes[1] * sizes[0]


@njit(nogil=True, error_model="numpy")
def _others(job: Any) -> Any:
    """`_pitches` of what is added, which may be a box out of a larger volume."""
    return 4 * job[21], 4 * job[22], 4 * job[23], 4 * job[24]


@njit(nogil=True, error_model="numpy")
def _extent(job: Any, place: int, sample: int, sizes: Any) -> Any:
    """What of a sample lies inside: all of it, or three numbers a sample, whose number stands in the job at a place."""
    if job[place] == 0:
        return sizes[0], sizes[1], sizes[2]
    first = place + 1 + 3 * sample
    return job[first], job[first + 1], job[first + 2]


@njit(nogil=True, error_model="numpy")
def _products(a: int, b: int, c: int, tiles: int, channels: int, columns: int) -> None:
    """c (tiles in sixes, 16) = a (tiles, C in eights) · b (C in eights, 16), of which so many columns count."""
    row = -(-channels // LANES) * BYTES
    m = 0
    while m < tiles:
        left, out = a + m * row, c + m * PANEL_BYTES
        if columns > LANES:
            _product_16(left, row, 4, b, PANEL_BYTES, out, PANEL_BYTES, channels)
        elif m + _FEW < tiles:
            _product_8_twice(left, row, 4, b, PANEL_BYTES, out, PANEL_BYTES, channels)
            m += _FEW
        else:
            _product_8(left, row, 4, b, PANEL_BYTES, out, PANEL_BYTES, channels)
        m += _FEW


_JOB = types.void(types.CPointer(types.int64))
_STAMP = source_stamp(counter, matrices, toom_cook, vectors, winograd_filters, winograd_tiles)


@njit(nogil=True, error_model="numpy")
def _into_domain(
    job: Any,
    place: int,
    source: int,
    sizes: Any,
    channels: int,
    apart: int,
    padding: int,
    norm: int,
    start: int,
    tiles: int,
    counts: Any,
    room: int,
    before: int,
    plane: int,
) -> None:
    """Windows of some tiles, all channels, to ``before`` (216, tiles, C in eights); extents at a place of the job."""
    deep = -(-channels // LANES) * LANES
    pitches, readable = _pitches(sizes, apart), deep if apart >= deep else channels
    tile = 0
    while tile < tiles:
        sample, (z, y, x) = _corner(start + tile, counts)
        corner, extent = (z - padding, y - padding, x - padding), _extent(job, place, sample, sizes)
        volume = source + sample * pitches[3]
        # Where the channels left over are loaded by eights, nothing after the last sample may be read.
        end = volume + pitches[3]
        run = min(tiles - tile, counts[2] - x // TILE, _RUN)
        for c in range(0, channels, PANEL):
            normed = norm + c // LANES * 3 * BYTES if norm != 0 else 0
            out, lanes = before + 4 * (tile * deep + c), min(PANEL, readable - c)
            analyse(volume + 4 * c, end, corner, run, extent, pitches, lanes, room, normed, out, 4 * deep, plane)
        tile += run


@njit(nogil=True, error_model="numpy")
def _ask_ahead(place: int, tiles: int, blocks: Any, pitches: Any, other: int) -> None:
    """Ask for a 216th of the lines of the cache that hold what is added to a panel's 4³ voxels a tile."""
    lines = tiles * TILE**3
    for line in range(place * lines // PLACES, (place + 1) * lines // PLACES):
        offset = line // 16 % 4 * pitches[2] + line // 4 % 4 * pitches[1] + line % 4 * pitches[0]
        prefetch(other + blocks[line // 64] + offset)


@njit(nogil=True, error_model="numpy")
def _out_of_domain(job: Any, first: int, start: int, tiles: int, after: int, plane: int, room: int) -> None:
    """The channels from ``first`` on, at most sixteen, of some tiles at ``after`` to the volume."""
    target, bias, other, shape, columns = job[1], job[4], job[5], (job[10], job[11], job[12]), job[13]
    other_first, other_channels, apart, others = job[14], job[15], job[20], _others(job)
    counts = (-(-shape[0] // TILE), -(-shape[1] // TILE), -(-shape[2] // TILE))
    pitches, wide = _pitches(shape, apart), -(-columns // LANES) * LANES
    beside_wide = other == 0 or others[0] >= 4 * (-(-other_channels // LANES) * LANES)
    writable = wide if apart >= wide and beside_wide else columns
    eights = 2 if columns - first > LANES else 1
    last = other_first + other_channels
    has = (other_first <= first < last, other_first <= first + LANES < last)
    for tile in range(tiles):
        sample, (z, y, x) = _corner(start + tile, counts)
        extent = _extent(job, _INSIDE, sample, shape)
        volume, own = target + sample * pitches[3] + 4 * first, after + tile * PANEL_BYTES
        pair = bias + first // LANES * 2 * BYTES if bias != 0 else 0
        beside = other + sample * others[3] + 4 * (first - other_first)
        besides = (beside if has[0] else 0, beside + BYTES if has[1] else 0)
        if job[25] and z + TILE <= extent[0] and y + TILE <= extent[1] and x + TILE <= extent[2]:
            place = volume + z * pitches[2] + y * pitches[1] + x * pitches[0]
            offset = z * others[2] + y * others[1] + x * others[0]
            besides = (besides[0] + offset if has[0] else 0, besides[1] + offset if has[1] else 0)
            stream_whole(own, plane, pair, place, pitches, eights, room, besides, others)
            continue
        for eight in range(eights):
            lanes, beside = min(LANES, writable - first - eight * LANES), besides[eight]
            synthesise(own, plane, pair, volume, (z, y, x), shape, extent, pitches, lanes, room, beside, others)
            own, volume, pair = own + BYTES, volume + BYTES, pair + 2 * BYTES if pair != 0 else 0


@njit(nogil=True, error_model="numpy")
def _convolve(job: Any) -> None:
    source, filters, norm, other = job[0], job[2], job[3], job[5]
    sizes, channels, shape, columns = (job[6], job[7], job[8]), job[9], (job[10], job[11], job[12]), job[13]
    other_first, others, padding, total, group = job[14], _others(job), job[16], job[17], job[18]
    other_last, apart, following = other_first + job[15], job[19], job[_INSIDE + 1 + job[_INSIDE]]
    deep = -(-channels // LANES) * LANES
    counts = (-(-shape[0] // TILE), -(-shape[1] // TILE), -(-shape[2] // TILE))
    plane, plane_out = _odd(4 * group * deep), _odd(group * PANEL_BYTES)
    before = job[26] + take_next(job[28]) * job[27]
    after = before + PLACES * plane
    buffers, blocks = make_room(channels), np.zeros(group, np.int64)
    room = buffers.ctypes.data
    while True:
        start = take_next(following) * group
        if start >= total:
            return
        tiles = min(group, total - start)
        _into_domain(
            job, _INSIDE, source, sizes, channels, apart, padding, norm, start, tiles, counts, room, before, plane
        )
        for tile in range(tiles):
            sample, (z, y, x) = _corner(start + tile, counts)
            blocks[tile] = sample * others[3] + z * others[2] + y * others[1] + x * others[0]
        for first in range(0, columns, PANEL):
            panel = filters + first // PANEL * PLACES * deep * PANEL_BYTES
            for place in range(PLACES):
                if other_first - PANEL < first < other_last:
                    _ask_ahead(place, tiles, blocks, others, other + 4 * (first - other_first))
                a, b, c = before + place * plane, panel + place * deep * PANEL_BYTES, after + place * plane_out
                _products(a, b, c, tiles, channels, columns - first)
            _out_of_domain(job, first, start, tiles, after, plane_out, room)


@cfunc(_JOB, cache=True, error_model="numpy")
def convolve(job: Any) -> None:
    """Tiles of the output, a group at a time.

    What a thread writes past the caches is in memory when it takes its next piece, which is a locked instruction.
    """
    _ = _STAMP
    _convolve(job)


@njit(nogil=True, error_model="numpy")
def _added_products(a: int, b: int, c: int, tiles: int, rows: int, columns: int) -> None:
    """c (rows, columns) += aᵀ b for a (tiles, rows) and b (tiles, columns), rows and columns multiples of 8."""
    ra, rb = 4 * rows, 4 * columns
    for n in range(0, columns, PANEL):
        m = 0
        while m < rows:
            left, right, out = a + 4 * m, b + 4 * n, c + m * rb + 4 * n
            six = rows - m != 4 and rows - m != 8  # a multiple of 8 is a sum of sixes and at most two fours
            if six and n + PANEL <= columns:
                _added_6x16(left, 4, ra, right, rb, out, rb, tiles)
            elif six:
                _added_6x8(left, 4, ra, right, rb, out, rb, tiles)
            elif n + PANEL <= columns:
                _added_4x16(left, 4, ra, right, rb, out, rb, tiles)
            else:
                _added_4x8(left, 4, ra, right, rb, out, rb, tiles)
            m += 6 if six else 4


@njit(nogil=True, error_model="numpy")
def _correlate(job: Any) -> None:
    source, gradient, sums, norm = job[0], job[1], job[2], job[3]
    sizes, channels, shape, columns = (job[4], job[5], job[6]), job[7], (job[8], job[9], job[10]), job[11]
    padding, total, group, scratch, slot_bytes, slots = job[12], job[13], job[14], job[15], job[16], job[17]
    following = job[19 + job[18]]
    deep, wide = -(-channels // LANES) * LANES, -(-columns // LANES) * LANES
    counts = (-(-shape[0] // TILE), -(-shape[1] // TILE), -(-shape[2] // TILE))
    pitches = _pitches(shape, columns)
    plane, plane_out = _odd(4 * group * deep), _odd(4 * group * wide)
    buffers, buffers_out = make_room(channels), make_room(columns)
    room, room_out = buffers.ctypes.data, buffers_out.ctypes.data
    while True:
        slot = take_next(following)
        if slot >= slots:
            return
        before = scratch + slot * slot_bytes
        after = before + PLACES * plane
        own = sums + slot * PLACES * deep * wide * 4
        for start in range(slot * group, total, slots * group):
            tiles = min(group, total - start)
            _into_domain(
                job, 18, source, sizes, channels, channels, padding, norm, start, tiles, counts, room, before, plane
            )
            for tile in range(tiles):
                sample, corner = _corner(start + tile, counts)
                volume = gradient + sample * pitches[3]
                for c in range(0, columns, LANES):
                    out, lanes = after + 4 * (tile * wide + c), min(LANES, columns - c)
                    end = volume + pitches[3]
                    spread(volume + 4 * c, end, corner, shape, pitches, lanes, room_out, out, plane_out)
            for place in range(PLACES):
                a, b = before + place * plane, after + place * plane_out
                _added_products(a, b, own + place * deep * wide * 4, tiles, deep, wide)


@cfunc(_JOB, cache=True, error_model="numpy")
def correlate(job: Any) -> None:
    """Sums (slots, 216, C, C') += tiles of a volume, transposed, times tiles of a gradient.

    Slot s takes the groups s, s + slots, … in this order, so the sums do not depend on the threads' pace.
    """
    _ = _STAMP
    _correlate(job)
