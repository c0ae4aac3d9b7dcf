"""The compiled part of `networks.winograd`: tiles of a volume to Winograd's domain and back, in registers.

Three passes, one an axis, apply a small matrix to the six (or four) places of a tile along that axis, eight channels at
a time; between the volume and Winograd's domain a tile never leaves the first-level cache. Compiled by Numba when first
used and cached on disk; importing this module without Numba raises ImportError.

A job is an array of int64: the address of the volume (B, D, H, W, C), the address of the tiles (216, T, C'), D, H, W,
C, tiles along D, H and W, how far the first tile begins before the volume, T, the rows of tiles (counted over B, D and
H) to do, [first, last), and the address of the next row to take, shared by all threads that do the job. Volume and
tiles are float32; the tiles have C rounded up to eights, with zeros in the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic

from compiled import counter, source_stamp
from compiled.counter import take_next
from networks import toom_cook
from networks.toom_cook import ANALYSIS, SYNTHESIS

LANES = 8
_BYTES = 4 * LANES
_PANEL = 64
# Bytes of tiles that are used again before others come: they stay in the first-level cache.
_NEAR = 256 * 2**10
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ADDRESS = types.int64


def _offset(builder: Any, base: Any, step: Any, count: int) -> Any:
    """The address ``count`` steps after ``base``."""
    return builder.add(base, builder.mul(step, ir.Constant(step.type, count)))


def _load_at(builder: Any, address: Any, kind: Any) -> Any:
    """The value of a type at an address, which need not be aligned."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _store_at(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address, which need not be aligned."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _combination(builder: Any, row: np.ndarray, vectors: list[Any]) -> Any:
    """Σ row[k] · vectors[k] as instructions; zeros and ones cost nothing."""
    total = None
    for factor, vector in zip(row, vectors, strict=True):
        if factor == 0:
            continue
        term = vector
        if factor != 1:
            constant = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(factor)))] * LANES)
            term = builder.fmul(vector, constant, flags=("contract",))
        total = term if total is None else builder.fadd(total, term, flags=("contract",))
    return total


def _linear_map(matrix: np.ndarray, kind: Any = _VECTOR) -> Any:
    """A function (source, source step, target, target step) that writes matrix · source, all addresses in bytes."""

    @intrinsic
    def apply(context: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            base, step, out, out_step = arguments
            columns = range(matrix.shape[1])
            vectors = [_load_at(builder, _offset(builder, base, step, k), kind) for k in columns]
            results = [_combination(builder, row, vectors) for row in matrix]
            for k, result in enumerate(results):
                _store_at(builder, result, _offset(builder, out, out_step, k))
            return context.get_dummy_value()

        return types.void(_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS), generate

    return apply


def _product(rows: int, vectors: int, *, add: bool = False) -> Any:
    """A function (a, a row, a step, b, b step, c, c row, depth): c = Σ a b, or with ``add`` c += Σ a b; all in bytes.

    ``rows`` rows and ``vectors`` · 8 columns of c; the sums stay in registers over the whole depth, for each step of
    which one number of every row of a meets the vectors of b.
    """
    scalar = ir.Constant(_VECTOR, ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    places = [divmod(index, vectors) for index in range(rows * vectors)]

    @intrinsic
    def apply(
        context: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any, depth: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a_row, a_step, b, b_step, c, c_row, depth = arguments
            before = builder.block
            lines = [_offset(builder, a, a_row, i) for i in range(rows)]
            outs = [builder.add(_offset(builder, c, c_row, row), ir.Constant(c.type, _BYTES * v)) for row, v in places]
            zero = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * LANES)
            starts = [_load_at(builder, out, _VECTOR) if add else zero for out in outs]
            loop, after = builder.append_basic_block("depth"), builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            step, right, shift = builder.phi(depth.type), builder.phi(b.type), builder.phi(a_step.type)
            step.add_incoming(ir.Constant(depth.type, 0), before)
            right.add_incoming(b, before)
            shift.add_incoming(ir.Constant(a_step.type, 0), before)
            sums = [builder.phi(_VECTOR) for _ in places]
            columns = [
                _load_at(builder, builder.add(right, ir.Constant(b.type, _BYTES * v)), _VECTOR) for v in range(vectors)
            ]
            results: list[Any] = []
            for line in lines:
                value = _load_at(builder, builder.add(line, shift), _FLOAT)
                lane = builder.insert_element(scalar, value, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(lane, scalar, first_lane)
                for column in columns:
                    term = builder.fmul(spread, column, flags=("contract",))
                    results.append(builder.fadd(sums[len(results)], term, flags=("contract",)))
            following = builder.add(step, ir.Constant(step.type, 1))
            step.add_incoming(following, loop)
            right.add_incoming(builder.add(right, b_step), loop)
            shift.add_incoming(builder.add(shift, a_step), loop)
            for total, start, value in zip(sums, starts, results, strict=True):
                total.add_incoming(start, before)
                total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for out, value in zip(outs, results, strict=True):
                _store_at(builder, value, out)
            return context.get_dummy_value()

        return types.void(*(_ADDRESS,) * 8), generate

    return apply


_copy, _copy_float = _linear_map(np.eye(1)), _linear_map(np.eye(1), _FLOAT)
_analyse = _linear_map(ANALYSIS)
_synthesise = _linear_map(SYNTHESIS)
_spread = _linear_map(SYNTHESIS.T)
_product_16, _product_8 = _product(6, 2), _product(6, 1)
_added_6x16, _added_6x8 = _product(6, 2, add=True), _product(6, 1, add=True)
_added_4x16, _added_4x8 = _product(4, 2, add=True), _product(4, 1, add=True)


@njit(nogil=True, error_model="numpy")
def _copy_lanes(source: int, target: int, lanes: int) -> None:
    """The first ``lanes`` of eight channels."""
    if lanes == LANES:
        _copy(source, 0, target, 0)
    else:
        for lane in range(lanes):
            _copy_float(source + 4 * lane, 0, target + 4 * lane, 0)


@njit(nogil=True, error_model="numpy")
def _load(volume: int, tile: int, zero: int, size: int, corner: Any, shape: Any, lanes: int) -> None:
    """``size``³ places of the volume from ``corner`` on, zeros outside, to the buffer ``tile``."""
    z0, y0, x0 = corner
    depth, height, width, pitch = shape
    first, last = max(0, -x0), min(size, width - x0)
    for z in range(z0, z0 + size):
        for y in range(y0, y0 + size):
            inside = 0 <= z < depth and 0 <= y < height
            begin, end = (first, last) if inside else (size, size)
            line = volume + ((z * height + y) * width + x0) * pitch
            for k in range(begin):
                _copy(zero, 0, tile + k * _BYTES, 0)
            for k in range(begin, end):
                if lanes < LANES:
                    _copy(zero, 0, tile + k * _BYTES, 0)
                _copy_lanes(line + k * pitch, tile + k * _BYTES, lanes)
            for k in range(end, size):
                _copy(zero, 0, tile + k * _BYTES, 0)
            tile += size * _BYTES


@njit(nogil=True, error_model="numpy")
def _store(tile: int, volume: int, corner: Any, shape: Any, lanes: int) -> None:
    """The 4³ places of the buffer ``tile`` to the volume from ``corner`` on, but for those outside."""
    z0, y0, x0 = corner
    depth, height, width, pitch = shape
    for i in range(min(4, depth - z0)):
        for j in range(min(4, height - y0)):
            line = volume + (((z0 + i) * height + y0 + j) * width + x0) * pitch
            for k in range(min(4, width - x0)):
                _copy_lanes(tile + ((i * 4 + j) * 4 + k) * _BYTES, line + k * pitch, lanes)


@njit(nogil=True, error_model="numpy")
def _analyse_tile(a: int, b: int, out: int, plane: int) -> None:
    """ANALYSIS along each axis of the 6³ places of ``a`` (``b`` a second buffer) to ``out``, ``plane`` bytes apart."""
    for i in range(36):
        _analyse(a + i * 6 * _BYTES, _BYTES, b + i * 6 * _BYTES, _BYTES)
    for i in range(6):
        for k in range(6):
            place = (i * 36 + k) * _BYTES
            _analyse(b + place, 6 * _BYTES, a + place, 6 * _BYTES)
    for k in range(36):
        _analyse(a + k * _BYTES, 36 * _BYTES, out + k * plane, 36 * plane)


@njit(nogil=True, error_model="numpy")
def _spread_tile(a: int, b: int, out: int, plane: int) -> None:
    """SYNTHESISᵀ along each axis of the 4³ places of ``a`` to ``out``."""
    for i in range(16):
        _spread(a + i * 4 * _BYTES, _BYTES, b + i * 6 * _BYTES, _BYTES)
    for i in range(4):
        for k in range(6):
            _spread(b + (i * 24 + k) * _BYTES, 6 * _BYTES, a + (i * 36 + k) * _BYTES, 6 * _BYTES)
    for k in range(36):
        _spread(a + k * _BYTES, 36 * _BYTES, out + k * plane, 36 * plane)


@njit(nogil=True, error_model="numpy")
def _synthesise_tile(tile: int, plane: int, a: int, b: int) -> None:
    """SYNTHESIS along each axis of the 6³ values at ``tile``, ``plane`` bytes apart, to the 4³ places of ``a``."""
    for k in range(36):
        _synthesise(tile + k * plane, 36 * plane, a + k * _BYTES, 36 * _BYTES)
    for i in range(4):
        for k in range(6):
            _synthesise(a + (i * 36 + k) * _BYTES, 6 * _BYTES, b + (i * 24 + k) * _BYTES, 6 * _BYTES)
    for i in range(16):
        _synthesise(b + i * 6 * _BYTES, _BYTES, a + i * 4 * _BYTES, _BYTES)


@njit(nogil=True, error_model="numpy")
def _work(job: Any, task: int) -> None:
    """Take rows of tiles until none is left."""
    channels, nz, ny, nx, pad = job[5], job[6], job[7], job[8], job[9]
    shape = (job[2], job[3], job[4], channels * 4)
    tile_pitch = -(-channels // LANES) * _BYTES
    plane = job[10] * tile_pitch
    buffers = np.zeros((2 * 216 + 1) * LANES, np.float32)
    a = buffers.ctypes.data
    b, zero = a + 216 * _BYTES, a + 432 * _BYTES
    while True:
        row = take_next(job[13])
        if row >= job[12]:
            return
        sample = job[0] + row // (nz * ny) * shape[0] * shape[1] * shape[2] * shape[3]
        z, y = row // ny % nz * 4 - pad, row % ny * 4 - pad
        for tile in range(nx):
            corner = (z, y, tile * 4 - pad)
            place = job[1] + ((row - job[11]) * nx + tile) * tile_pitch
            for c in range(0, tile_pitch, _BYTES):
                lanes = min(LANES, channels - c // 4)
                if task == 0:
                    _load(sample + c, a, zero, 6, corner, shape, lanes)
                    _analyse_tile(a, b, place + c, plane)
                elif task == 1:
                    _load(sample + c, a, zero, 4, corner, shape, lanes)
                    _spread_tile(a, b, place + c, plane)
                else:
                    _synthesise_tile(place + c, plane, a, b)
                    _store(a, sample + c, corner, shape, lanes)


_JOB = types.void(types.CPointer(types.int64))


def _compiled(task: int, stamp: int) -> Any:
    """`_work` of one task as a C function, kept on disk for the ``stamp`` of what it is made from."""

    @cfunc(_JOB, cache=True, error_model="numpy")
    def work(job: Any) -> None:
        _ = stamp
        _work(job, task)

    return work


_STAMP = source_stamp(counter, toom_cook)
# Windows of 6³ voxels of the volume, 4 apart, into the domain.
analyse = _compiled(0, _STAMP)
# Blocks of 4³ voxels of the volume into the domain, by the transpose of `synthesise`.
spread = _compiled(1, _STAMP)
# Tiles of the domain to blocks of 4³ voxels of the volume.
synthesise = _compiled(2, _STAMP)


@njit(nogil=True, error_model="numpy")
def _products(a: int, b: int, c: int, count: int, channels: int, columns: int) -> None:
    """c (count, columns) = a (count, channels) · b (panels, channels, 16), ``count`` a multiple of 6."""
    ra, rc = 4 * channels, 4 * columns
    panel = channels * _PANEL
    for m in range(0, count, 6):
        for n in range(0, columns, 16):
            left, right, out = a + m * ra, b + n // 16 * panel, c + m * rc + 4 * n
            if n + 16 <= columns:
                _product_16(left, ra, 4, right, _PANEL, out, rc, channels)
            else:
                _product_8(left, ra, 4, right, _PANEL, out, rc, channels)


@cfunc(_JOB, cache=True, error_model="numpy")
def multiply(job: Any) -> None:
    """Tiles (216, T, C) · filters (216, panels, C, 16) to tiles (216, T, C'), T a multiple of 6.

    The job: the addresses of the three, T, C, C' and the address of the next place to take.
    """
    count, channels, columns = job[3], job[4], job[5]
    tiles_in, tiles_out = count * channels * 4, count * columns * 4
    filters = -(-columns // 16) * channels * _PANEL
    while True:
        place = take_next(job[6])
        if place >= 216:
            return
        a, b, c = job[0] + place * tiles_in, job[1] + place * filters, job[2] + place * tiles_out
        _products(a, b, c, count, channels, columns)


@njit(nogil=True, error_model="numpy")
def _correlations(a: int, b: int, c: int, count: int, rows: int, columns: int) -> None:
    """c (rows, columns) += aᵀ b for a (count, rows) and b (count, columns), rows and columns multiples of 8."""
    ra, rb = 4 * rows, 4 * columns
    for n in range(0, columns, 16):
        m = 0
        while m < rows:
            left, right, out = a + 4 * m, b + 4 * n, c + m * rb + 4 * n
            six = rows - m != 4 and rows - m != 8  # a multiple of 8 is a sum of sixes and at most two fours
            if six and n + 16 <= columns:
                _added_6x16(left, 4, ra, right, rb, out, rb, count)
            elif six:
                _added_6x8(left, 4, ra, right, rb, out, rb, count)
            elif n + 16 <= columns:
                _added_4x16(left, 4, ra, right, rb, out, rb, count)
            else:
                _added_4x8(left, 4, ra, right, rb, out, rb, count)
            m += 6 if six else 4


@cfunc(_JOB, cache=True, error_model="numpy")
def correlate(job: Any) -> None:
    """To a sum (216, C, C') tiles (216, T, C), transposed, times tiles (216, T, C'); C and C' multiples of 8.

    The job: the addresses of the tiles and of the sum, T, C, C' and the address of the next place to take.
    """
    count, rows, columns = job[3], job[4], job[5]
    stretch = max(32, _NEAR // (4 * max(rows, columns)))
    while True:
        place = take_next(job[6])
        if place >= 216:
            return
        c = job[2] + place * rows * columns * 4
        for first in range(0, count, stretch):
            a = job[0] + (place * count + first) * rows * 4
            b = job[1] + (place * count + first) * columns * 4
            _correlations(a, b, c, min(stretch, count - first), rows, columns)
