"""The compiled chain of 1³ layers: a few voxels at a time, from the first layer to the last.

A thread keeps ``ROWS`` voxels in its first-level cache on their way through all layers, from one buffer of rows to
another and back::

    source (voxels, C)  →  buffer b  →  buffer a  →  buffer b  …  →  target (voxels, C')
                layer 0      layer 1      layer 2

so that the wide features in between never go out to memory: 110 to 150 GFLOP/s on two cores, where one layer after
another in PyTorch reached 80 in DeepMedic. Compiled by Numba when first used and cached on disk; importing this module
without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, njit

from rarevox.compiled import counter, source_stamp
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions import jobs, matrices, sizes, vectors
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader, record_reader
from rarevox.networks.cpu.instructions.matrices import product
from rarevox.networks.cpu.instructions.sizes import (
    BLOCK_ROWS,
    FLOAT_BYTES,
    LANES,
    LINE_BYTES,
    PANEL,
    PANEL_BYTES,
    VECTOR_BYTES,
)
from rarevox.networks.cpu.instructions.vectors import copy_float, copy_vector, in_eights, prefetch
from rarevox.networks.cpu.pointwise import job as pointwise_job
from rarevox.networks.cpu.pointwise.job import ROWS, Chain, LayerWeights

# Voxels that a thread takes at a time.
_PIECE = 32 * ROWS
_LAYER_BYTES = 8 * len(LayerWeights._fields)
_product_16, _product_8 = product(BLOCK_ROWS, 2, biased=True), product(ROWS, 1, biased=True)
_add_16, _add_8 = product(BLOCK_ROWS, 2, add=True, biased=True), product(ROWS, 1, add=True, biased=True)
_chain_job, _layer_at = job_reader(Chain), record_reader(LayerWeights)

_SOURCES = (counter, jobs, matrices, pointwise_job, sizes, vectors)
_STAMP = source_stamp(*_SOURCES)


@njit(nogil=True, error_model="numpy")
def _copy(source: int, target: int, count: int) -> None:
    """So many floats; nothing beyond them is read or written."""
    whole = count // LANES
    for k in range(whole):
        copy_vector(source + k * VECTOR_BYTES, target + k * VECTOR_BYTES)
    for k in range(whole * LANES, count):
        copy_float(source + FLOAT_BYTES * k, target + FLOAT_BYTES * k)


@njit(nogil=True, error_model="numpy")
def _layer(
    a: int, a_row: int, depth: int, weights: int, bias: int, columns: int, out: int, out_row: int, add: bool
) -> None:
    """out (ROWS, columns in eights) = activation of a (ROWS, depth) · weights (panels, depth, 16) + bias.

    With ``add`` the sums begin with what stands in ``out``.
    """
    for first in range(0, columns, PANEL):
        panel, pair = weights + first * depth * FLOAT_BYTES, bias + 2 * first * FLOAT_BYTES
        right = out + first * FLOAT_BYTES
        if columns - first <= LANES:
            # One vector of weights: all twelve rows of it are twelve sums, as six rows of two vectors are.
            if add:
                _add_8(a, a_row, FLOAT_BYTES, panel, PANEL_BYTES, right, out_row, depth, pair)
            else:
                _product_8(a, a_row, FLOAT_BYTES, panel, PANEL_BYTES, right, out_row, depth, pair)
            continue
        for m in range(0, ROWS, BLOCK_ROWS):
            left, sums = a + m * a_row, right + m * out_row
            if add:
                _add_16(left, a_row, FLOAT_BYTES, panel, PANEL_BYTES, sums, out_row, depth, pair)
            else:
                _product_16(left, a_row, FLOAT_BYTES, panel, PANEL_BYTES, sums, out_row, depth, pair)


@njit(nogil=True, error_model="numpy")
def _begin_with_coarse(job: Any, start: int, rows: int, columns: int, out: int) -> None:
    """The coarse sums at some voxels, each at the coarse voxel that it lies in, to the rows at ``out``."""
    wide = in_eights(columns)
    line, x = start // job.width, start % job.width
    for row in range(rows):
        # Voxels follow one another along x: where they are is found once for each line of the volume.
        if row == 0 or x == job.width:
            x = 0 if row > 0 else x
            plane, y = line // job.height, line % job.height
            z = plane // job.depth * job.coarse_depth + (plane % job.depth + job.planes_before) // job.factor
            first, line = (z * job.coarse_height + y // job.factor) * job.coarse_width, line + 1
        _copy(job.coarse + (first + x // job.factor) * FLOAT_BYTES * wide, out + row * job.row_bytes, wide)
        x += 1


@njit(nogil=True, error_model="numpy")
def _through(job: Any, start: int, rows: int, a: int, b: int) -> None:
    """Some voxels through all layers, in the rows of two buffers."""
    values, stride = job.source + start * job.source_stride_bytes, job.source_stride_bytes
    for offset in range(ROWS * stride, 2 * ROWS * stride, LINE_BYTES):
        prefetch(values + offset)
    if rows < ROWS:  # beyond the last voxel nothing may be read
        for row in range(rows):
            _copy(values + row * stride, a + row * job.row_bytes, job.in_channels)
        values, stride = a, job.row_bytes
    for number in range(job.layer_count):
        layer = _layer_at(job.layers + _LAYER_BYTES * number)
        add = number == 0 and job.coarse != 0
        if add:
            _begin_with_coarse(job, start, rows, layer.out_channels, b)
        _layer(
            values,
            stride,
            layer.in_channels,
            layer.panels,
            layer.bias,
            layer.out_channels,
            b,
            job.row_bytes,
            add,
        )
        a, b = b, a
        values, stride = a, job.row_bytes
    for row in range(rows):
        target = job.target + (start + row) * FLOAT_BYTES * job.out_channels
        _copy(a + row * job.row_bytes, target, job.out_channels)


@njit(nogil=True, error_model="numpy")
def _chain(pointer: Any) -> None:
    job, next_piece = _chain_job(pointer)
    # Each call of this function is a thread and takes two buffers of its own, wherever it runs.
    own = job.buffers + take_next(job.threads) * 2 * ROWS * job.row_bytes
    while True:
        piece = take_next(next_piece) * _PIECE
        if piece >= job.voxels:
            return
        for start in range(piece, min(piece + _PIECE, job.voxels), ROWS):
            _through(job, start, min(ROWS, job.voxels - start), own, own + ROWS * job.row_bytes)


@cfunc(KERNEL, cache=True, error_model="numpy")
def chain(pointer: Any) -> None:
    """Voxels through a chain of layers (`Chain`)."""
    _ = _STAMP
    _chain(pointer)
