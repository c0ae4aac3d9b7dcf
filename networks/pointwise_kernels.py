"""The compiled chain of 1³ layers of `networks.pointwise`: a few voxels at a time, from the first layer to the last.

A thread keeps ``ROWS`` voxels in its first-level cache on their way through all layers. Compiled by Numba when first
used and cached on disk; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit, types

from compiled import counter, source_stamp, vectors
from compiled.counter import take_next
from compiled.vectors import BYTES, LANES, add_bias, add_vectors, copy_float, copy_vector, product

ROWS, PANEL, LAYER = 12, 16, 4
"""Voxels at a time, channels of a panel of weights, and the numbers that tell of a layer."""
_PIECE = 32 * ROWS
_FEW = 6
_product_16, _product_8 = product(_FEW, 2), product(_FEW, 1)

_JOB = types.void(types.CPointer(types.int64))
_STAMP = source_stamp(counter, vectors)


@njit(nogil=True, error_model="numpy")
def _copy(source: int, target: int, count: int) -> None:
    """So many floats; nothing beyond them is read or written."""
    whole = count // LANES
    for k in range(whole):
        copy_vector(source + k * BYTES, target + k * BYTES, 0)
    for k in range(whole * LANES, count):
        copy_float(source + 4 * k, target + 4 * k, 0)


@njit(nogil=True, error_model="numpy")
def _products(a: int, a_row: int, depth: int, weights: int, columns: int, out: int, out_row: int, rows: int) -> None:
    """out (rows in sixes, columns in eights) = a (rows in sixes, depth) · weights (panels, depth, 16)."""
    for first in range(0, columns, PANEL):
        panel = weights + first * depth * 4
        for m in range(0, rows, _FEW):
            left, right = a + m * a_row, out + m * out_row + 4 * first
            if columns - first > LANES:
                _product_16(left, a_row, 4, panel, 4 * PANEL, right, out_row, depth)
            else:
                _product_8(left, a_row, 4, panel, 4 * PANEL, right, out_row, depth)


@njit(nogil=True, error_model="numpy")
def _coarse_place(job: Any, voxel: int) -> int:
    """The number of the coarse voxel that a voxel lies in."""
    factor, offset, depth, height, width = job[8], job[9], job[10], job[11], job[12]
    x, y, z = voxel % width, voxel // width % height, voxel // (width * height) % depth
    sample = voxel // (width * height * depth)
    return ((sample * job[13] + (z + offset) // factor) * job[14] + y // factor) * job[15] + x // factor


@njit(nogil=True, error_model="numpy")
def _through(job: Any, start: int, rows: int, a: int, b: int) -> None:
    """Some voxels through all layers, in the rows of two buffers."""
    source, target, channels, pitch, coarse, put = job[0], job[1], job[3], job[6], job[7], job[16]
    layers = job[17]
    for row in range(rows):
        _copy(source + (start + row) * 4 * channels, a + row * pitch, channels)
    for layer in range(layers):
        at = 18 + LAYER * layer
        weights, pairs, depth, columns = job[at], job[at + 1], job[at + 2], job[at + 3]
        _products(a, pitch, depth, weights, columns, b, pitch, rows)
        eights = -(-columns // LANES)
        for row in range(rows):
            place = b + row * pitch
            if layer == 0 and coarse != 0:
                beside = coarse + _coarse_place(job, start + row) * eights * BYTES
                for k in range(eights):
                    add_vectors(place + k * BYTES, place + k * BYTES, beside + k * BYTES)
            for k in range(eights):
                add_bias(place + k * BYTES, place + k * BYTES, pairs + 2 * k * BYTES)
        a, b = b, a
    for row in range(rows):
        _copy(a + row * pitch, target + (start + row) * 4 * put, put)


@njit(nogil=True, error_model="numpy")
def _chain(job: Any) -> None:
    voxels, following = job[2], job[18 + LAYER * job[17]]
    own = job[4] + take_next(job[5]) * 2 * ROWS * job[6]
    while True:
        piece = take_next(following) * _PIECE
        if piece >= voxels:
            return
        for start in range(piece, min(piece + _PIECE, voxels), ROWS):
            _through(job, start, min(ROWS, voxels - start), own, own + ROWS * job[6])


@cfunc(_JOB, cache=True, error_model="numpy")
def chain(job: Any) -> None:
    """Voxels through a chain of layers.

    The job: addresses of source (voxels, C) and target (voxels, C'); voxels; C; the address of the buffers, that of the
    number of the next thread, bytes of a row in them; the address of coarse sums (…, C₁ in eights) or 0, the factor,
    the planes before the first one, D, H and W, those of the coarse sums; C'; how many layers, and for each the
    addresses of its panels (panels, C, 16) and of bias and slope (eights, 2, 8), its input and its output channels.
    """
    _ = _STAMP
    _chain(job)
