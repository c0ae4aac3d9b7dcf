"""Sizes on which the compiled kernels and those who call them agree; importing this needs no Numba."""

from __future__ import annotations

FLOAT_BYTES = 4

# Floats in a vector of the kernels: an AVX register. LLVM makes two instructions of one where registers are narrower.
LANES = 8
VECTOR_BYTES = FLOAT_BYTES * LANES

# Output channels whose weights lie side by side, so that one step of a product loads them at once: two vectors.
PANEL = 2 * LANES
PANEL_BYTES = FLOAT_BYTES * PANEL

# Rows of the register block of a product. Six rows of one panel are twelve sums; with the two vectors of weights and
# the number that is broadcast they take fifteen of AVX2's sixteen registers.
BLOCK_ROWS = 6

# A line of the cache, the unit in which memory is read and written.
LINE_BYTES = 64
LINE_FLOATS = LINE_BYTES // FLOAT_BYTES


def in_eights(channels: int) -> int:
    """So many channels rounded up to whole vectors.

    >>> in_eights(1), in_eights(8), in_eights(9)
    (8, 8, 16)
    """
    return -(-channels // LANES) * LANES
