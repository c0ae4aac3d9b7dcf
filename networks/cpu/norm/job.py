"""The job of the passes over a batch norm's volumes, field by field; importing this needs no Numba.

Python fills it by keyword and the kernels read it by name (`rarevox.networks.cpu.instructions.jobs`).
"""

from __future__ import annotations

from typing import NamedTuple

# Voxels of a piece of work. Each has sums of its own, so that their total does not depend on which thread was faster.
ROWS = 512


class Pass(NamedTuple):
    """A job of a kernel of `rarevox.networks.cpu.norm.kernels`; C a multiple of 8."""

    x: int  # address, (voxels, C)
    gradient: int  # address, (voxels, C)
    parameters: int  # address, (eights, parameters of the kernel, 8)
    sums: int  # address, (pieces, eights, sums of the kernel, 8)
    voxels: int
    channels: int
