"""A job of `rarevox.losses.sums.cpu.kernels`: an array of int64, and what stands at its places.

Addresses are in bytes, strides in elements; 0 is the address of what is not there.
"""

from __future__ import annotations

LOGITS, LABELS, WEIGHT, GRADIENT, SUMS, EXTREMES = range(6)
# GROUPS: problems a sample. STRETCH: voxels that a thread takes at a time.
PROBLEMS, GROUPS, CLASSES, DEPTH, HEIGHT, WIDTH, STRETCH = range(6, 13)
# Five places each: strides of sample, channel, depth, height and width.
LOGIT_STRIDES, GRADIENT_STRIDES = 13, 18
HALF_PRECISION, LABEL_KIND, SIGMOID, IGNORING, IGNORED, SQUARES, ENTROPY, COUNTER = range(23, 31)

# The kinds of labels.
UINT8, INT16, INT32, INT64, FLOAT32 = range(5)

# Columns of the sums, in the order of SumTable, and extremes in that of `rarevox.losses.sums.checks.check_values`.
COLUMNS, SEEN = 7, 6
