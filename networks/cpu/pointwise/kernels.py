"""The compiled chain of 1³ layers: a few voxels at a time, from the first layer to the last.

A thread keeps ``ROWS`` voxels in its first-level cache on their way through all layers. Compiled by Numba when first
used and cached on disk; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit, types

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import matrices, vectors
from rarevox.networks.cpu.instructions.matrices import product
from rarevox.networks.cpu.instructions.vectors import BYTES, LANES, copy_float, copy_vector, prefetch

ROWS, PANEL, LAYER, _FIRST = 12, 16, 4, 19
"""Voxels at a time, channels of a panel of weights, the numbers that tell of a layer, the place of the first one."""
_PIECE, _LINE = 32 * ROWS, 64
_FEW = 6
_product_16, _product_8 = product(_FEW, 2, biased=True), product(ROWS, 1, biased=True)
_added_16, _added_8 = product(_FEW, 2, add=True, biased=True), product(ROWS, 1, add=True, biased=True)

_JOB = types.void(types.CPointer(types.int64))
_STAMP = source_stamp(counter, matrices, vectors)


@njit(nogil=True, error_model="numpy")
def _copy(source: int, target: int, count: int) -> None:
    """So many floats; nothing beyond them is read or written."""
    whole = count // LANES
    for k in range(whole):
        copy_vector(source + k * BYTES, target + k * BYTES)
    for k in range(whole * LANES, count):
        copy_float(source + 4 * k, target + 4 * k)


@njit(nogil=True, error_model="numpy")
def _layer(
    a: int, a_row: int, depth: int, weights: int, pairs: int, columns: int, out: int, out_row: int, add: bool
) -> None:
    """out (ROWS, columns in eights) = activation of a (ROWS, depth) · weights (panels, depth, 16) + bias.

    With ``add`` the sums begin with what stands in ``out``.
    """
    for first in range(0, columns, PANEL):
        panel, pair, right = weights + first * depth * 4, pairs + 2 * first * 4, out + first * 4
        if columns - first <= LANES:
            if add:
                _added_8(a, a_row, 4, panel, 4 * PANEL, right, out_row, depth, pair)
            else:
                _product_8(a, a_row, 4, panel, 4 * PANEL, right, out_row, depth, pair)
            continue
        for m in range(0, ROWS, _FEW):
            left, sums = a + m * a_row, right + m * out_row
            if add:
                _added_16(left, a_row, 4, panel, 4 * PANEL, sums, out_row, depth, pair)
            else:
                _product_16(left, a_row, 4, panel, 4 * PANEL, sums, out_row, depth, pair)


@njit(nogil=True, error_model="numpy")
def _begin_with_coarse(job: Any, start: int, rows: int, columns: int, out: int) -> None:
    """The coarse sums at some voxels, each at the coarse voxel that it lies in, to the rows at ``out``."""
    coarse, factor, offset, depth, height, width = job[7], job[8], job[9], job[10], job[11], job[12]
    wide = -(-columns // LANES) * LANES
    line, x = start // width, start % width
    for row in range(rows):
        if row == 0 or x == width:
            x = 0 if row > 0 else x
            plane, y = line // height, line % height
            z = plane // depth * job[13] + (plane % depth + offset) // factor
            first, line = (z * job[14] + y // factor) * job[15], line + 1
        _copy(coarse + (first + x // factor) * 4 * wide, out + row * job[6], wide)
        x += 1


@njit(nogil=True, error_model="numpy")
def _through(job: Any, start: int, rows: int, a: int, b: int) -> None:
    """Some voxels through all layers, in the rows of two buffers."""
    source, target, channels, pitch, coarse, put = job[0], job[1], job[3], job[6], job[7], job[16]
    apart, layers = job[17], job[18]
    values, step = source + start * apart, apart
    for offset in range(ROWS * apart, 2 * ROWS * apart, _LINE):
        prefetch(values + offset)
    if rows < ROWS:  # beyond the last voxel nothing may be read
        for row in range(rows):
            _copy(values + row * apart, a + row * pitch, channels)
        values, step = a, pitch
    for layer in range(layers):
        at = _FIRST + LAYER * layer
        weights, pairs, depth, columns = job[at], job[at + 1], job[at + 2], job[at + 3]
        add = layer == 0 and coarse != 0
        if add:
            _begin_with_coarse(job, start, rows, columns, b)
        _layer(values, step, depth, weights, pairs, columns, b, pitch, add)
        a, b = b, a
        values, step = a, pitch
    for row in range(rows):
        _copy(a + row * pitch, target + (start + row) * 4 * put, put)


@njit(nogil=True, error_model="numpy")
def _chain(job: Any) -> None:
    voxels, following = job[2], job[_FIRST + LAYER * job[18]]
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
    the planes before the first one, D, H and W, those of the coarse sums; C'; bytes from one voxel of
    the source to the next; how many layers, and for each the addresses of its panels (panels, C, 16) and of bias and
    slope (eights, 2, 8), its input and its output channels.
    """
    _ = _STAMP
    _chain(job)
