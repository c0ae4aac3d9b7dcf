"""One tile of eight channels between a volume and Winograd's domain, in registers and the first-level cache.

Three passes, one an axis, apply a small matrix of `rarevox.networks.cpu.winograd.toom_cook` to the six (or four) places
of the tile along that axis. Compiled by Numba; importing this module without Numba raises ImportError.

A volume (D, H, W, C) of float32 is told by its address; its extent, how much of D, H and W is inside (the rest reads
as zero and is written as zero); and its pitches, the bytes from one voxel, line and plane to the next. ``room`` is the
address of a thread's buffers, made by `make_room`. ``lanes`` is the number of channels left, at most eight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.networks.cpu.instructions.matrices import linear_map, square_map
from rarevox.networks.cpu.instructions.vectors import (
    BYTES,
    LANES,
    add_floats,
    add_vectors,
    copy_float,
    copy_masked,
    copy_vector,
    prefetch,
)
from rarevox.networks.cpu.winograd.toom_cook import ANALYSIS, SYNTHESIS

_analyse, _analyse_square, _analyse_normed = (
    linear_map(ANALYSIS),
    square_map(ANALYSIS),
    linear_map(ANALYSIS, normed=True),
)
_analyse_from_2, _analyse_from_4 = linear_map(ANALYSIS, first=2), linear_map(ANALYSIS, first=4)
_spread, _synthesise = linear_map(SYNTHESIS.T), linear_map(SYNTHESIS)
_synthesise_biased, _synthesise_plus = linear_map(SYNTHESIS, biased=True), linear_map(SYNTHESIS, plus=True)
_synthesise_both = linear_map(SYNTHESIS, biased=True, plus=True)
_stream, _stream_biased = linear_map(SYNTHESIS, stream=True), linear_map(SYNTHESIS, biased=True, stream=True)
_stream_plus = linear_map(SYNTHESIS, plus=True, stream=True)
_stream_both = linear_map(SYNTHESIS, biased=True, plus=True, stream=True)
_norm = linear_map(np.eye(1), normed=True)
# Voxels by which columns are asked for ahead; 4 to 8 make no difference, without it a convolution takes up to a fifth
# more.
_AHEAD = 8
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
            copy_vector(zero, place)
        elif lanes == LANES:
            copy_vector(voxel, place)
        elif voxel + BYTES <= end:
            copy_masked(voxel, place, room + _MASK)
        else:
            copy_vector(zero, place)
            for lane in range(lanes):
                copy_float(voxel + 4 * lane, place + 4 * lane)


@njit(nogil=True, error_model="numpy")
def _column(
    volume: int, end: int, corner: Any, x: int, extent: Any, pitches: Any, lanes: int, room: int, norm: int, column: int
) -> None:
    """ANALYSIS along the first two axes of the 6 x 6 places from ``corner`` on, at x, to 36 vectors of a ``column``."""
    if not 0 <= x < extent[2]:
        for k in range(36):
            copy_vector(room + _ZERO, column + k * BYTES)
        return
    first, last = max(0, -corner[0]), min(6, extent[0] - corner[0])
    whole = first == 0 and last == 6 and lanes == LANES
    top = volume + corner[0] * pitches[2] + corner[1] * pitches[1] + x * pitches[0]
    ahead = top + _AHEAD * pitches[0]
    for row in range(36):
        prefetch(ahead + row // 6 * pitches[2] + row % 6 * pitches[1])
    if whole and norm == 0 and corner[1] >= 0 and corner[1] + 6 <= extent[1]:
        _analyse_square(top, pitches[2], pitches[1], column)
        return
    plane = room + _PLANE
    for row in range(6):
        y, place = corner[1] + row, plane + row * BYTES
        if not (0 <= y < extent[1] and first < last):
            for k in range(6):
                copy_vector(room + _ZERO, place + 6 * k * BYTES)
            continue
        line, pitch = top + row * pitches[1], pitches[2]
        if not whole:
            _load_line(line, pitch, room, first, last, lanes, end)
            line, pitch = room + _LINE, BYTES
        if norm == 0:
            _analyse(line, pitch, place, 6 * BYTES)
        elif whole:
            _analyse_normed(line, pitch, place, 6 * BYTES, norm)
        else:
            for k in range(first, last):
                _norm(line + k * BYTES, 0, line + k * BYTES, 0, norm)
            _analyse(line, pitch, place, 6 * BYTES)
    for k in range(6):
        _analyse(plane + 6 * k * BYTES, BYTES, column + 6 * k * BYTES, BYTES)


@njit(nogil=True, error_model="numpy")
def _leave(ring: int, first: int, row: int, out: int, plane: int) -> None:
    """ANALYSIS along the last axis of a ring of six columns to ``out``, ``plane`` bytes apart: one of its 36 rows."""
    place, target = ring + row * BYTES, out + 6 * row * plane
    if first == 0:
        _analyse(place, 36 * BYTES, target, plane)
    elif first == 2:
        _analyse_from_2(place, 36 * BYTES, target, plane)
    else:
        _analyse_from_4(place, 36 * BYTES, target, plane)


@njit(nogil=True, error_model="numpy")
def analyse(
    volume: int,
    end: int,
    corner: Any,
    tiles: int,
    extent: Any,
    pitches: Any,
    lanes: int,
    room: int,
    norm: int,
    out: int,
    step: int,
    plane: int,
) -> None:
    """ANALYSIS along each axis of the 6³ places from ``corner`` on, and of as many ``tiles`` beside it, four apart.

    To ``out``, the places of a tile ``plane`` bytes and the tiles ``step`` bytes apart. At most sixteen ``lanes`` of
    channels: those fill a line of the cache, which is then read and written once. Two tiles side by side share two of
    their six columns, which go through the first two axes once; columns further on are asked for meanwhile.

    ``norm`` is 0 or the address of scale, shift and slope of each eight: what lies inside enters normed and activated.
    """
    second, other = room + _SECOND, norm + 3 * BYTES if norm != 0 else 0
    for tile in range(tiles):
        for k in range(0 if tile == 0 else 2, 6):
            x = 4 * tile + k
            column = x % 6 * 36 * BYTES
            x += corner[2]
            _column(volume, end, corner, x, extent, pitches, min(lanes, LANES), room, norm, room + column)
            if lanes > LANES:
                _column(volume + BYTES, end, corner, x, extent, pitches, lanes - LANES, room, other, second + column)
        first = 4 * tile % 6
        for row in range(36):
            _leave(room, first, row, out, plane)
            if lanes > LANES:
                _leave(second, first, row, out + BYTES, plane)
        out += step


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
                copy_vector(room + _ZERO, place + k * BYTES)
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
def _put(source: int, target: int, other: int, lanes: int) -> None:
    """The first lanes of a vector, plus those at ``other`` if that is not 0."""
    if lanes == LANES:
        if other == 0:
            copy_vector(source, target)
        else:
            add_vectors(source, target, other)
        return
    for lane in range(lanes):
        if other == 0:
            copy_float(source + 4 * lane, target + 4 * lane)
        else:
            add_floats(source + 4 * lane, target + 4 * lane, other + 4 * lane)


@njit(nogil=True, error_model="numpy")
def _last_axis(source: int, target: int, pitch: int, bias: int, other: int, others: int) -> None:
    """SYNTHESIS of six vectors to four, ``pitch`` bytes apart; bias, activation and the vectors at ``other`` unless 0.

    Those lie ``others`` bytes apart.
    """
    if bias == 0 and other == 0:
        _synthesise(source, BYTES, target, pitch)
    elif other == 0:
        _synthesise_biased(source, BYTES, target, pitch, bias)
    elif bias == 0:
        _synthesise_plus(source, BYTES, target, pitch, other, others)
    else:
        _synthesise_both(source, BYTES, target, pitch, bias, other, others)


@njit(nogil=True, error_model="numpy")
def _first_axes(tile: int, plane: int, room: int, out: int) -> None:
    """SYNTHESIS along the first two axes of the 6³ values at ``tile``, ``plane`` bytes apart, to 96 vectors."""
    for k in range(36):
        _synthesise(tile + k * plane, 36 * plane, room + k * BYTES, 36 * BYTES)
    for i in range(4):
        for k in range(6):
            _synthesise(room + (i * 36 + k) * BYTES, 6 * BYTES, out + (i * 24 + k) * BYTES, 6 * BYTES)


@njit(nogil=True, error_model="numpy")
def _last_axis_streamed(source: int, target: int, pitch: int, bias: int, other: int, others: int) -> None:
    """`_last_axis` past the caches."""
    if bias == 0 and other == 0:
        _stream(source, BYTES, target, pitch)
    elif other == 0:
        _stream_biased(source, BYTES, target, pitch, bias)
    elif bias == 0:
        _stream_plus(source, BYTES, target, pitch, other, others)
    else:
        _stream_both(source, BYTES, target, pitch, bias, other, others)


@njit(nogil=True, error_model="numpy")
def stream_whole(
    tile: int, plane: int, bias: int, place: int, pitches: Any, eights: int, room: int, besides: Any, others: Any
) -> None:
    """`synthesise` of sixteen channels, of whose two eights the second may mean nothing, to 4³ voxels past the caches.

    All of them lie inside, the first one at ``place``; that and the pitches are multiples of a line of the cache.
    ``besides`` are the addresses, or 0, of what is added to each eight at the first voxel, with the pitches ``others``.
    """
    second = room + _SECOND
    for eight in range(eights):
        _first_axes(tile + eight * BYTES, plane, room, second + 96 * eight * BYTES)
    for row in range(16):
        line, source = place + row // 4 * pitches[2] + row % 4 * pitches[1], second + 6 * row * BYTES
        offset = row // 4 * others[2] + row % 4 * others[1]
        for half in range(2):
            eight = min(half, eights - 1)
            pair = bias + 2 * eight * BYTES if bias != 0 else 0
            other = besides[eight] + offset if besides[eight] != 0 else 0
            values, target = source + 96 * eight * BYTES, line + half * BYTES
            _last_axis_streamed(values, target, pitches[0], pair, other, others[0])


@njit(nogil=True, error_model="numpy")
def synthesise(
    tile: int,
    plane: int,
    bias: int,
    volume: int,
    corner: Any,
    shape: Any,
    extent: Any,
    pitches: Any,
    lanes: int,
    room: int,
    other: int,
    others: Any,
) -> None:
    """SYNTHESIS along each axis of the 6³ values at ``tile``, ``plane`` bytes apart, to 4³ voxels from ``corner`` on.

    What of them is outside the volume's ``shape`` is left out. ``bias`` is 0 or the address of a bias and a slope: the
    bias is added and the activation taken. ``other`` is 0 or the address of a volume with pitches of its own,
    ``others``, that is added then.
    """
    second = room + _SECOND
    _first_axes(tile, plane, room, second)
    width = min(4, shape[2] - corner[2])
    for row in range(16):
        z, y = corner[0] + row // 4, corner[1] + row % 4
        if z >= shape[0] or y >= shape[1]:
            continue
        source = second + row * 6 * BYTES
        line = volume + z * pitches[2] + y * pitches[1] + corner[2] * pitches[0]
        beside = other
        if other != 0:
            beside += z * others[2] + y * others[1] + corner[2] * others[0]
        inside = extent[2] - corner[2] if z < extent[0] and y < extent[1] else 0
        if width == 4 and inside >= 4 and lanes == LANES:
            _last_axis(source, line, pitches[0], bias, beside, others[0])
            continue
        _last_axis(source, room, BYTES, bias, 0, 0)
        for k in range(width):
            if k < inside:
                _put(room + k * BYTES, line + k * pitches[0], beside, lanes)
            else:
                _put(room + _ZERO, line + k * pitches[0], 0, lanes)
            if other != 0:
                beside += others[0]
