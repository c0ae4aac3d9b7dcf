"""Tiles out of Winograd's domain into a volume, eight channels at a time, with the epilogue of the convolution fused
in.

The 6³ values of a tile become 4³ voxels: (SYNTHESIS ⊗ SYNTHESIS ⊗ SYNTHESIS) m, a 4 × 6 matrix along each axis, so that
one tile shrinks from 6 × 6 × 6 by 4 × 6 × 6 and 4 × 4 × 6 to 4 × 4 × 4 vectors. Bias, activation and what is added
(``bias``, ``add``) come with the last axis, while its four results are in registers.

A volume is told as in `rarevox.networks.cpu.winograd.analysis`; what is outside its extent is written as zero. Compiled
by Numba; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from rarevox.networks.cpu.instructions.matrices import linear_map
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import add_floats, add_vectors, copy_float, copy_vector
from rarevox.networks.cpu.winograd.scratch import SECOND, ZERO
from rarevox.networks.cpu.winograd.toom_cook import SYNTHESIS, TILE, WINDOW

_FACE = WINDOW**2
# Vectors of a tile after two axes.
_TWO_AXES = TILE**2 * WINDOW
# One function for each epilogue, with plain and with non-temporal stores.
_synthesise, _stream = (linear_map(SYNTHESIS, stream=stream) for stream in (False, True))
_synthesise_bias, _stream_bias = (linear_map(SYNTHESIS, biased=True, stream=stream) for stream in (False, True))
_synthesise_add, _stream_add = (linear_map(SYNTHESIS, plus=True, stream=stream) for stream in (False, True))
_synthesise_both, _stream_both = (
    linear_map(SYNTHESIS, biased=True, plus=True, stream=stream) for stream in (False, True)
)


@njit(nogil=True, error_model="numpy")
def _put(source: int, target: int, add: int, lanes: int) -> None:
    """The first lanes of a vector, plus those at ``add`` if that is not 0."""
    if lanes == LANES:
        if add == 0:
            copy_vector(source, target)
        else:
            add_vectors(source, target, add)
        return
    for lane in range(lanes):
        if add == 0:
            copy_float(source + FLOAT_BYTES * lane, target + FLOAT_BYTES * lane)
        else:
            add_floats(source + FLOAT_BYTES * lane, target + FLOAT_BYTES * lane, add + FLOAT_BYTES * lane)


@njit(nogil=True, error_model="numpy")
def _last_axis(source: int, target: int, stride: int, bias: int, add: int, add_stride: int) -> None:
    """SYNTHESIS of six vectors to four, with bias and activation and with the vectors at ``add`` unless these are 0."""
    if bias == 0 and add == 0:
        _synthesise(source, VECTOR_BYTES, target, stride)
    elif add == 0:
        _synthesise_bias(source, VECTOR_BYTES, target, stride, bias)
    elif bias == 0:
        _synthesise_add(source, VECTOR_BYTES, target, stride, add, add_stride)
    else:
        _synthesise_both(source, VECTOR_BYTES, target, stride, bias, add, add_stride)


@njit(nogil=True, error_model="numpy")
def _last_axis_streamed(source: int, target: int, stride: int, bias: int, add: int, add_stride: int) -> None:
    """`_last_axis` past the caches."""
    if bias == 0 and add == 0:
        _stream(source, VECTOR_BYTES, target, stride)
    elif add == 0:
        _stream_bias(source, VECTOR_BYTES, target, stride, bias)
    elif bias == 0:
        _stream_add(source, VECTOR_BYTES, target, stride, add, add_stride)
    else:
        _stream_both(source, VECTOR_BYTES, target, stride, bias, add, add_stride)


@njit(nogil=True, error_model="numpy")
def _first_axes(tile: int, place_stride: int, scratch: int, out: int) -> None:
    """SYNTHESIS along the first two axes of the 6³ values at ``tile`` to 4 × 4 × 6 vectors at ``out``."""
    for k in range(_FACE):
        _synthesise(tile + k * place_stride, _FACE * place_stride, scratch + k * VECTOR_BYTES, _FACE * VECTOR_BYTES)
    for z in range(TILE):
        for k in range(WINDOW):
            source = scratch + (z * _FACE + k) * VECTOR_BYTES
            target = out + (z * TILE * WINDOW + k) * VECTOR_BYTES
            _synthesise(source, WINDOW * VECTOR_BYTES, target, WINDOW * VECTOR_BYTES)


@njit(nogil=True, error_model="numpy")
def stream_whole(
    tile: int,
    place_stride: int,
    bias: int,
    first_voxel: int,
    strides: Any,
    eights: int,
    scratch: int,
    adds: Any,
    add_strides: Any,
) -> None:
    """`synthesise` of sixteen channels to 4³ voxels that all lie inside, past the caches.

    The sixteen channels of a voxel are a line of the cache, whose halves are written one right after the other: the
    processor gathers them into one write. So both vectors go through the first two axes before any is written.

    Args:
        tile: address of the first eight channels; those of the second lie next to them.
        place_stride: bytes from one of the 216 places to the next.
        bias: 0, or the address of bias and slope of each eight.
        first_voxel: its address in the volume, a multiple of a line of the cache, as the strides are.
        strides: bytes from voxel to voxel, row to row and plane to plane.
        eights: 2, or 1 where the second eight channels mean nothing; the line is filled with the first then.
        scratch: the thread's buffers.
        adds: the addresses, or 0, of what is added to each eight at the first voxel.
        add_strides: its strides.
    """
    second = scratch + SECOND
    for eight in range(eights):
        _first_axes(tile + eight * VECTOR_BYTES, place_stride, scratch, second + _TWO_AXES * eight * VECTOR_BYTES)
    for row in range(TILE**2):
        line = first_voxel + row // TILE * strides[2] + row % TILE * strides[1]
        source = second + WINDOW * row * VECTOR_BYTES
        offset = row // TILE * add_strides[2] + row % TILE * add_strides[1]
        for half in range(2):
            eight = min(half, eights - 1)
            pair = bias + 2 * eight * VECTOR_BYTES if bias != 0 else 0
            add = adds[eight] + offset if adds[eight] != 0 else 0
            values, target = source + _TWO_AXES * eight * VECTOR_BYTES, line + half * VECTOR_BYTES
            _last_axis_streamed(values, target, strides[0], pair, add, add_strides[0])


@njit(nogil=True, error_model="numpy")
def synthesise(
    tile: int,
    place_stride: int,
    bias: int,
    volume: int,
    corner: Any,
    shape: Any,
    extent: Any,
    strides: Any,
    lanes: int,
    scratch: int,
    add: int,
    add_strides: Any,
) -> None:
    """SYNTHESIS along each axis of the 6³ values of eight channels at ``tile`` to the voxels from ``corner`` on.

    Args:
        tile: address.
        place_stride: bytes from one of the 216 places to the next.
        bias: 0, or the address of bias and slope: the bias is added and the activation taken.
        volume: address.
        corner: z, y and x of the first voxel.
        shape: of the volume; voxels of the tile outside it are left out.
        extent: what of the shape is inside; voxels outside it become zero.
        strides: bytes from voxel to voxel, row to row and plane to plane.
        lanes: channels to be written, at most eight.
        scratch: the thread's buffers.
        add: 0, or the address of a volume that is added after all else.
        add_strides: its strides.
    """
    second = scratch + SECOND
    _first_axes(tile, place_stride, scratch, second)
    width = min(TILE, shape[2] - corner[2])
    for row in range(TILE**2):
        z, y = corner[0] + row // TILE, corner[1] + row % TILE
        if z >= shape[0] or y >= shape[1]:
            continue
        source = second + row * WINDOW * VECTOR_BYTES
        line = volume + z * strides[2] + y * strides[1] + corner[2] * strides[0]
        beside = add
        if add != 0:
            beside += z * add_strides[2] + y * add_strides[1] + corner[2] * add_strides[0]
        inside = extent[2] - corner[2] if z < extent[0] and y < extent[1] else 0
        if width == TILE and inside >= TILE and lanes == LANES:
            _last_axis(source, line, strides[0], bias, beside, add_strides[0])
            continue
        # At the volume's faces and for channels left over: all four voxels to the scratch memory, the first of which is
        # free again, and from there what is asked for.
        _last_axis(source, scratch, VECTOR_BYTES, bias, 0, 0)
        for k in range(width):
            if k < inside:
                _put(scratch + k * VECTOR_BYTES, line + k * strides[0], beside, lanes)
            else:
                _put(scratch + ZERO, line + k * strides[0], 0, lanes)
            if add != 0:
                beside += add_strides[0]
