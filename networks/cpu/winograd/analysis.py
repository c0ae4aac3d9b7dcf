"""Windows of a volume into Winograd's domain, eight channels at a time, in registers and the first-level cache.

A tile is 4³ voxels of the output; it is made from a window of 6³ voxels of the input, 3³ kernel and all. Along one
axis, with a padding of 1::

    input    -1   0   1   2   3   4   5   6   7   8      voxels; what lies outside the volume is 0
             [---- window of tile 0 ---]                 6 voxels in …
    output        [---- tile 0 ----]                     … 4 voxels out
                             [---- window of tile 1 ---]
                                  [---- tile 1 ----]

Windows of neighbouring tiles share two voxels. A window d goes into the domain as (ANALYSIS ⊗ ANALYSIS ⊗ ANALYSIS) d:
one pass for each axis, of a 6 × 6 matrix on six vectors of eight channels (`rarevox.networks.cpu.winograd.toom_cook`).
The 216 places of the domain lie ``place_stride`` bytes apart, the tiles of a group side by side in each place, as the
products take them.

A volume (D, H, W, C) of float32 is told by its address; its ``extent``, how much of D, H and W is inside (the rest
reads as zero); and its ``strides``, the bytes from one voxel, row and plane to the next. ``lanes`` is the number of
channels left. Compiled by Numba; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.networks.cpu.instructions.matrices import linear_map, square_map
from rarevox.networks.cpu.instructions.sizes import LANES, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import copy_vector, prefetch
from rarevox.networks.cpu.winograd.scratch import PLANE, ROW, SECOND, ZERO, load_row
from rarevox.networks.cpu.winograd.toom_cook import ANALYSIS, SYNTHESIS, TILE, WINDOW

_FACE = WINDOW**2
_analyse, _analyse_normed = linear_map(ANALYSIS), linear_map(ANALYSIS, normed=True)
_analyse_square = square_map(ANALYSIS)
_analyse_from_2, _analyse_from_4 = linear_map(ANALYSIS, first=2), linear_map(ANALYSIS, first=4)
_norm = linear_map(np.eye(1), normed=True)
_spread = linear_map(SYNTHESIS.T)
# Voxels by which columns are prefetched; 4 to 8 make no difference, without it a convolution takes up to a fifth more.
_AHEAD = 8


@njit(nogil=True, error_model="numpy")
def _column(
    volume: int,
    end: int,
    corner: Any,
    x: int,
    extent: Any,
    strides: Any,
    lanes: int,
    scratch: int,
    norm: int,
    column: int,
) -> None:
    """ANALYSIS along the first two axes of the 6 × 6 voxels from ``corner`` on, at x, to 36 vectors of a ``column``."""
    if not 0 <= x < extent[2]:
        for k in range(_FACE):
            copy_vector(scratch + ZERO, column + k * VECTOR_BYTES)
        return
    first, last = max(0, -corner[0]), min(WINDOW, extent[0] - corner[0])
    whole = first == 0 and last == WINDOW and lanes == LANES
    top = volume + corner[0] * strides[2] + corner[1] * strides[1] + x * strides[0]
    # The processor's own prefetching follows a few streams of addresses; these are 36, one for each row of the window.
    ahead = top + _AHEAD * strides[0]
    for row in range(_FACE):
        prefetch(ahead + row // WINDOW * strides[2] + row % WINDOW * strides[1])
    if whole and norm == 0 and corner[1] >= 0 and corner[1] + WINDOW <= extent[1]:
        # Both axes at once, in registers. It is most of the windows of a large volume.
        _analyse_square(top, strides[2], strides[1], column)
        return
    # One axis after the other, by way of PLANE. With a norm, rows outside the volume must stay zero: they do not become
    # activation(shift).
    plane = scratch + PLANE
    for row in range(WINDOW):
        y, place = corner[1] + row, plane + row * VECTOR_BYTES
        if not (0 <= y < extent[1] and first < last):
            for k in range(WINDOW):
                copy_vector(scratch + ZERO, place + WINDOW * k * VECTOR_BYTES)
            continue
        line, stride = top + row * strides[1], strides[2]
        if not whole:
            load_row(line, stride, scratch, first, last, lanes, end)
            line, stride = scratch + ROW, VECTOR_BYTES
        if norm == 0:
            _analyse(line, stride, place, WINDOW * VECTOR_BYTES)
        elif whole:
            _analyse_normed(line, stride, place, WINDOW * VECTOR_BYTES, norm)
        else:
            for k in range(first, last):
                _norm(line + k * VECTOR_BYTES, 0, line + k * VECTOR_BYTES, 0, norm)
            _analyse(line, stride, place, WINDOW * VECTOR_BYTES)
    for k in range(WINDOW):
        _analyse(plane + WINDOW * k * VECTOR_BYTES, VECTOR_BYTES, column + WINDOW * k * VECTOR_BYTES, VECTOR_BYTES)


@njit(nogil=True, error_model="numpy")
def _leave(ring: int, first: int, row: int, out: int, place_stride: int) -> None:
    """ANALYSIS along the last axis of a ring of six columns that begins at ``first``, for one of its 36 rows."""
    source, target, stride = ring + row * VECTOR_BYTES, out + WINDOW * row * place_stride, _FACE * VECTOR_BYTES
    # Where the ring begins stands in the instructions of three functions: no remainder is formed for each vector.
    if first == 0:
        _analyse(source, stride, target, place_stride)
    elif first == 2:
        _analyse_from_2(source, stride, target, place_stride)
    else:
        _analyse_from_4(source, stride, target, place_stride)


@njit(nogil=True, error_model="numpy")
def analyse(
    volume: int,
    end: int,
    corner: Any,
    tiles: int,
    extent: Any,
    strides: Any,
    lanes: int,
    scratch: int,
    norm: int,
    out: int,
    tile_stride: int,
    place_stride: int,
) -> None:
    """ANALYSIS along each axis of the window from ``corner`` on, and of as many ``tiles`` beside it, to ``out``.

    Two windows side by side share two of their six columns, which go through the first two axes once. The columns stand
    in a ring of six, column x at place x % 6, so that a window begins at 4·tile % 6 of it::

        ring place       0   1   2   3   4   5
        window 0: x =    0   1   2   3   4   5      begins at place 0
        window 1: x =    6   7   8   9   4   5      begins at place 4: columns 4 and 5 are there already
        window 2: x =   12  13   8   9  10  11      begins at place 2

    Sharing the columns and writing past the caches together took whole scans of HighResNet to 0.85 of the time.

    Args:
        volume: address.
        end: the address from which on nothing may be read.
        corner: z, y and x of the first window.
        tiles: windows side by side, four voxels apart.
        extent: see above.
        strides: see above.
        lanes: channels left. Of sixteen both vectors of a voxel are taken: they fill a line of the cache, which is read
            once then, as the line of the domain that takes them is written once.
        scratch: the thread's buffers.
        norm: 0, or the address of scale, shift and slope of each eight: what lies inside enters normed and activated.
        out: address in the domain.
        tile_stride: bytes.
        place_stride: bytes.
    """
    second, other = scratch + SECOND, norm + 3 * VECTOR_BYTES if norm != 0 else 0
    for tile in range(tiles):
        for k in range(0 if tile == 0 else WINDOW - TILE, WINDOW):
            x = TILE * tile + k
            column = x % WINDOW * _FACE * VECTOR_BYTES
            x += corner[2]
            _column(volume, end, corner, x, extent, strides, min(lanes, LANES), scratch, norm, scratch + column)
            if lanes > LANES:
                _column(
                    volume + VECTOR_BYTES,
                    end,
                    corner,
                    x,
                    extent,
                    strides,
                    lanes - LANES,
                    scratch,
                    other,
                    second + column,
                )
        first = TILE * tile % WINDOW
        for row in range(_FACE):
            _leave(scratch, first, row, out, place_stride)
            if lanes > LANES:
                _leave(second, first, row, out + VECTOR_BYTES, place_stride)
        out += tile_stride


@njit(nogil=True, error_model="numpy")
def spread(
    volume: int,
    end: int,
    corner: Any,
    extent: Any,
    strides: Any,
    lanes: int,
    scratch: int,
    out: int,
    place_stride: int,
) -> None:
    """SYNTHESISᵀ along each axis of a tile of 4³ voxels from ``corner`` on to 6³ places at ``out``.

    It is how the gradient of the output enters the domain: the transpose of how the output left it
    (`rarevox.networks.cpu.winograd.synthesis`). Arguments as those of `analyse`.
    """
    last = min(TILE, extent[2] - corner[2])
    second = scratch + SECOND
    for row in range(TILE**2):
        z, y = corner[0] + row // TILE, corner[1] + row % TILE
        place = second + row * WINDOW * VECTOR_BYTES
        if not (z < extent[0] and y < extent[1] and last > 0):
            for k in range(WINDOW):
                copy_vector(scratch + ZERO, place + k * VECTOR_BYTES)
            continue
        line = volume + z * strides[2] + y * strides[1] + corner[2] * strides[0]
        stride = strides[0]
        if last < TILE or lanes < LANES:
            load_row(line, stride, scratch, 0, last, lanes, end)
            line, stride = scratch + ROW, VECTOR_BYTES
        _spread(line, stride, place, VECTOR_BYTES)
    # 4 × 4 × 6 to 4 × 6 × 6, and to 6 × 6 × 6.
    for z in range(TILE):
        for k in range(WINDOW):
            source = second + (z * TILE * WINDOW + k) * VECTOR_BYTES
            target = scratch + (z * _FACE + k) * VECTOR_BYTES
            _spread(source, WINDOW * VECTOR_BYTES, target, WINDOW * VECTOR_BYTES)
    for k in range(_FACE):
        _spread(scratch + k * VECTOR_BYTES, _FACE * VECTOR_BYTES, out + k * place_stride, _FACE * place_stride)
