"""The table of sums that losses are arithmetic on, and what makes it.

Read first: `table.py` (the columns, and the letters that shapes are written with) and `overlap.py` (the door:
``overlap_sums``, and the choice between the backends). Behind the door:

- `cpu/`: kernels that Numba compiles, for float32 and bfloat16 on a CPU;
- `triton/`: kernels for CUDA devices;
- `pieces.py`: PyTorch's operations, for everything else, on pieces of the volume (`chunks.py`) that threads share
  (`workers.py`).

`nested.py` makes labels of depths in nested regions. `regions.py` and `voxel_entropy.py` are sums that are no table: by
connected component, and voxel by voxel.
"""

from rarevox.losses.sums.checks import NonFiniteLogitsError
from rarevox.losses.sums.overlap import overlap_sums
from rarevox.losses.sums.table import Columns, SumTable

__all__ = ["Columns", "NonFiniteLogitsError", "SumTable", "overlap_sums"]
