"""A job of `rarevox.losses.sums.cpu.kernels`: an array of int64, and what stands at its places.

Compiled code that runs on PyTorch's threads is given one pointer (`rarevox.compiled.share_out`), so all that it must
know stands in one array. Addresses are in bytes, strides in elements; 0 is the address of what is not there.
"""

from __future__ import annotations

from rarevox.losses.sums.checks import Extremes
from rarevox.losses.sums.table import KERNEL_COLUMNS

# Addresses.
LOGITS, LABELS, WEIGHT, GRADIENT, SUMS, EXTREMES = range(6)
# PROBLEMS: of the volume. GROUPS: problems of a sample. BLOCK: voxels that a thread takes at a time.
PROBLEMS, GROUPS, CLASSES, DEPTH, HEIGHT, WIDTH, BLOCK = range(6, 13)
# Five places each, from these on.
LOGIT_STRIDES, GRADIENT_STRIDES = 13, 18
SAMPLE, CHANNEL, PLANE, LINE, VOXEL = range(5)
STRIDES = 5
# The last place, which `share_out` appends, has the address of the number of the next block.
BFLOAT16, LABEL_KIND, SIGMOID, IGNORING, IGNORED, SQUARES, ENTROPY, COUNTER = range(23, 31)

# The kinds of labels.
UINT8, INT16, INT32, INT64, FLOAT32 = range(5)

# Columns of the sums, in the order of `rarevox.losses.sums.table.SumTable`, and extremes in that of `Extremes`.
COLUMNS, SEEN = KERNEL_COLUMNS, len(Extremes._fields)
