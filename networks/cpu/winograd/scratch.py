"""The buffers of one thread between a volume and Winograd's domain, and rows of voxels brought into them.

A thread's buffers take 15 kB and stay in the first-level cache (32 to 48 kB). ``scratch`` is their address throughout.
Compiled by Numba; importing this module without Numba raises ImportError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import copy_float, copy_masked, copy_vector
from rarevox.networks.cpu.winograd.toom_cook import PLACES, WINDOW

# Vectors of each buffer, and the bytes at which it begins: two windows of 6³, a plane of 6² and a row of 6; a vector of
# zeros, and one whose bits are set in the channels left over whole vectors.
_VECTORS = (PLACES, PLACES, WINDOW**2, WINDOW, 1, 1)
FIRST, SECOND, PLANE, ROW, ZERO, MASK = (VECTOR_BYTES * sum(_VECTORS[:k]) for k in range(len(_VECTORS)))
_FLOATS = LANES * sum(_VECTORS)
_MASK_FLOAT = MASK // FLOAT_BYTES


@njit(nogil=True, error_model="numpy")
def make_scratch(channels: int) -> Any:
    """The buffers of one thread, for volumes of so many channels."""
    scratch = np.zeros(_FLOATS, np.float32)
    scratch.view(np.int32)[_MASK_FLOAT : _MASK_FLOAT + channels % LANES] = -1
    return scratch


@njit(nogil=True, error_model="numpy")
def load_row(source: int, stride: int, scratch: int, first: int, last: int, lanes: int, end: int) -> None:
    """Voxels ``first`` to ``last`` of six, ``stride`` bytes apart, to the buffer ROW, zeros elsewhere.

    Args:
        source: address of voxel 0, which need not exist where ``first`` is not 0.
        stride: bytes.
        scratch: the thread's buffers.
        first: the voxels inside the volume.
        last: one after them.
        lanes: channels, at most eight; the others become 0.
        end: the address from which on nothing may be read.
    """
    row, zero = scratch + ROW, scratch + ZERO
    for k in range(WINDOW):
        place, voxel = row + k * VECTOR_BYTES, source + k * stride
        if k < first or k >= last:
            copy_vector(zero, place)
        elif lanes == LANES:
            copy_vector(voxel, place)
        elif voxel + VECTOR_BYTES <= end:
            # A whole vector at once: behind the last channel lies the next voxel, whose numbers are masked away.
            copy_masked(voxel, place, scratch + MASK)
        else:
            # Behind the last voxels of the memory there may be none to read.
            copy_vector(zero, place)
            for lane in range(lanes):
                copy_float(voxel + FLOAT_BYTES * lane, place + FLOAT_BYTES * lane)
