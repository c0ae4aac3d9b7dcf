"""One tile of eight channels between a volume and Winograd's domain, in registers and the first-level cache.

Three passes, one an axis, apply a small matrix of `networks.toom_cook` to the six (or four) places of the tile along
that axis. Compiled by Numba; importing this module without Numba raises ImportError.

A volume (D, H, W, C) of float32 is told by its address; its extent, how much of D, H and W is inside (the rest reads
as zero and is written as zero); and its pitches, the bytes from one voxel, line and plane to the next. ``room`` is the
address of a thread's buffers, made by `make_room`. ``lanes`` is the number of channels left, at most eight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from compiled.vectors import (
    BYTES,
    LANES,
    add_bias,
    add_floats,
    add_vectors,
    copy_float,
    copy_masked,
    copy_vector,
    linear_map,
    prefetch,
)
from networks.toom_cook import ANALYSIS, SYNTHESIS

_analyse, _analyse_normed = linear_map(ANALYSIS), linear_map(ANALYSIS, normed=True)
_spread, _synthesise = linear_map(SYNTHESIS.T), linear_map(SYNTHESIS)
_norm = linear_map(np.eye(1), normed=True)
# The places in the room: two tiles, a plane of 36 vectors, a line of six, zeros, and the mask of the channels left over
# eights.
_SECOND, _PLANE, _LINE, _ZERO, _MASK = (n * BYTES for n in (216, 432, 468, 474, 475))


@njit(nogil=True, error_model="numpy")
def make_room(channels: int) -> Any:
    """The buffers of one thread, for volumes of so many channels."""
    room = np.zeros(476 * LANES, np.float32)
    room.view(np.int32)[475 * LANES : 475 * LANES + channels % LANES] = -1
    return room


@njit(nogil=True, error_model="numpy")
def _load_line(source: int, pitch: int, room: int, first: int, last: int, lanes: int, end: int) -> None:
    """Voxels ``first`` to ``last`` of a line to the room's line, zeros elsewhere; nothing from ``end`` on is read."""
    line, zero = room + _LINE, room + _ZERO
    for k in range(6):
        place, voxel = line + k * BYTES, source + k * pitch
        if k < first or k >= last:
            copy_vector(zero, place, 0)
        elif lanes == LANES:
            copy_vector(voxel, place, 0)
        elif voxel + BYTES <= end:
            copy_masked(voxel, place, room + _MASK)
        else:
            copy_vector(zero, place, 0)
            for lane in range(lanes):
                copy_float(voxel + 4 * lane, place + 4 * lane, 0)


@njit(nogil=True, error_model="numpy")
def _enter(
    volume: int,
    end: int,
    corner: Any,
    extent: Any,
    pitches: Any,
    channel: int,
    lanes: int,
    room: int,
    norm: int,
    tile: int,
) -> None:
    """ANALYSIS along the last two axes of the 6³ places from ``corner`` on, eight channels, to a ``tile`` there."""
    first, last = max(0, -corner[2]), min(6, extent[2] - corner[2])
    plane = room + _PLANE
    for row in range(36):
        z, y = corner[0] + row // 6, corner[1] + row % 6
        place = plane + row % 6 * 6 * BYTES
        if not (0 <= z < extent[0] and 0 <= y < extent[1] and first < last):
            for k in range(6):
                copy_vector(room + _ZERO, place + k * BYTES, 0)
        else:
            line = volume + z * pitches[2] + y * pitches[1] + corner[2] * pitches[0]
            pitch = pitches[0]
            prefetch(line + 6 * pitch + 16 * channel)
            prefetch(line + 6 * pitch + 16 * channel + 64)
            line += 4 * channel
            whole = first == 0 and last == 6 and lanes == LANES
            if not whole:
                _load_line(line, pitch, room, first, last, lanes, end)
                line, pitch = room + _LINE, BYTES
            if norm == 0:
                _analyse(line, pitch, place, BYTES)
            elif whole:
                _analyse_normed(line, pitch, place, BYTES, norm)
            else:
                for k in range(first, last):
                    _norm(line + k * BYTES, 0, line + k * BYTES, 0, norm)
                _analyse(line, pitch, place, BYTES)
        if row % 6 == 5:
            for k in range(6):
                _analyse(plane + k * BYTES, 6 * BYTES, tile + (row // 6 * 36 + k) * BYTES, 6 * BYTES)


@njit(nogil=True, error_model="numpy")
def analyse(
    volume: int,
    end: int,
    corner: Any,
    extent: Any,
    pitches: Any,
    channel: int,
    lanes: int,
    room: int,
    norm: int,
    out: int,
    plane: int,
) -> None:
    """ANALYSIS along each axis of the 6³ places from ``corner`` on to ``out``, ``plane`` bytes apart.

    The channels from ``channel`` on, ``lanes`` of them, at most sixteen: those fill a line of the cache, which is then
    read and written once. Meanwhile their share of the next tile's voxels, all channels of four, is asked for.

    ``norm`` is 0 or the address of scale, shift and slope of each eight: what lies inside enters normed and activated.
    """
    _enter(volume, end, corner, extent, pitches, channel, min(lanes, LANES), room, norm, room)
    if lanes <= LANES:
        for k in range(36):
            _analyse(room + k * BYTES, 36 * BYTES, out + k * plane, 36 * plane)
        return
    second, other = room + _SECOND, norm + 3 * BYTES if norm != 0 else 0
    _enter(volume, end, corner, extent, pitches, channel + LANES, lanes - LANES, room, other, second)
    for k in range(36):
        _analyse(room + k * BYTES, 36 * BYTES, out + k * plane, 36 * plane)
        _analyse(second + k * BYTES, 36 * BYTES, out + BYTES + k * plane, 36 * plane)


@njit(nogil=True, error_model="numpy")
def spread(
    volume: int, end: int, corner: Any, extent: Any, pitches: Any, lanes: int, room: int, out: int, plane: int
) -> None:
    """SYNTHESISᵀ along each axis of the 4³ places from ``corner`` on to ``out``, ``plane`` bytes apart."""
    last = min(4, extent[2] - corner[2])
    second = room + _SECOND
    for row in range(16):
        z, y = corner[0] + row // 4, corner[1] + row % 4
        place = second + row * 6 * BYTES
        if not (z < extent[0] and y < extent[1] and last > 0):
            for k in range(6):
                copy_vector(room + _ZERO, place + k * BYTES, 0)
            continue
        line = volume + z * pitches[2] + y * pitches[1] + corner[2] * pitches[0]
        pitch = pitches[0]
        if last < 4 or lanes < LANES:
            _load_line(line, pitch, room, 0, last, lanes, end)
            line, pitch = room + _LINE, BYTES
        _spread(line, pitch, place, BYTES)
    for i in range(4):
        for k in range(6):
            _spread(second + (i * 24 + k) * BYTES, 6 * BYTES, room + (i * 36 + k) * BYTES, 6 * BYTES)
    for k in range(36):
        _spread(room + k * BYTES, 36 * BYTES, out + k * plane, 36 * plane)


@njit(nogil=True, error_model="numpy")
def synthesise(tile: int, plane: int, room: int, bias: int) -> None:
    """SYNTHESIS along each axis of the 6³ values at ``tile``, ``plane`` bytes apart, to the room's first 4³ vectors.

    ``bias`` is 0 or the address of a bias and a slope: the bias is added and the activation taken.
    """
    second = room + _SECOND
    for k in range(36):
        _synthesise(tile + k * plane, 36 * plane, room + k * BYTES, 36 * BYTES)
    for i in range(4):
        for k in range(6):
            _synthesise(room + (i * 36 + k) * BYTES, 6 * BYTES, second + (i * 24 + k) * BYTES, 6 * BYTES)
    for i in range(16):
        _synthesise(second + i * 6 * BYTES, BYTES, room + i * 4 * BYTES, BYTES)
    if bias != 0:
        for k in range(64):
            add_bias(room + k * BYTES, room + k * BYTES, bias)


@njit(nogil=True, error_model="numpy")
def _put(source: int, target: int, other: int, lanes: int) -> None:
    """The first lanes of a vector, plus those at ``other`` if that is not 0."""
    if lanes == LANES:
        if other == 0:
            copy_vector(source, target, 0)
        else:
            add_vectors(source, target, other)
        return
    for lane in range(lanes):
        if other == 0:
            copy_float(source + 4 * lane, target + 4 * lane, 0)
        else:
            add_floats(source + 4 * lane, target + 4 * lane, other + 4 * lane)


@njit(nogil=True, error_model="numpy")
def store(
    volume: int, corner: Any, shape: Any, extent: Any, pitches: Any, lanes: int, room: int, other: int, others: Any
) -> None:
    """The room's first 4³ vectors to the volume of a ``shape`` from ``corner`` on, but for those beyond it.

    ``other`` is 0 or the address of a volume with pitches of its own, ``others``, whose vectors are added.
    """
    for row in range(16):
        i, j = row // 4, row % 4
        z, y = corner[0] + i, corner[1] + j
        if z >= shape[0] or y >= shape[1]:
            continue
        line = volume + z * pitches[2] + y * pitches[1] + corner[2] * pitches[0]
        beside = other
        if other != 0:
            beside += z * others[2] + y * others[1] + corner[2] * others[0]
        inside = extent[2] - corner[2] if z < extent[0] and y < extent[1] else 0
        for k in range(min(4, shape[2] - corner[2])):
            if k < inside:
                _put(room + (row * 4 + k) * BYTES, line + k * pitches[0], beside, lanes)
            else:
                _put(room + _ZERO, line + k * pitches[0], 0, lanes)
            if other != 0:
                beside += others[0]
