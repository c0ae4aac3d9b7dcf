"""The job of the chain of 1³ layers, field by field; importing this needs no Numba.

Python fills it by keyword and the kernel reads it by name (`rarevox.networks.cpu.instructions.jobs`). Fields are int64:
addresses, 0 for what is not there; sizes in voxels; strides in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from rarevox.networks.cpu.instructions.sizes import BLOCK_ROWS

# Voxels that go through all layers together: two register blocks, or one of one vector where few channels are left.
ROWS = 2 * BLOCK_ROWS


class LayerWeights(NamedTuple):
    """One layer in the job's table of them."""

    panels: int  # address of the weights, (panels, C, 16)
    bias: int  # address, bias and slope of each eight of channels, (eights, 2, 8)
    in_channels: int
    out_channels: int


class Chain(NamedTuple):
    """A job of `kernels.chain`."""

    source: int  # address, (voxels, C)
    source_stride_bytes: int  # from one voxel to the next
    in_channels: int
    target: int  # address, (voxels, C')
    out_channels: int
    voxels: int
    depth: int  # of a sample
    height: int
    width: int

    buffers: int  # address, two of ROWS rows for each thread
    row_bytes: int  # of a buffer
    threads: int  # address of the number of the next thread to come

    layers: int  # address of the table of `LayerWeights`
    layer_count: int

    coarse: int  # address of sums that the first layer begins with, (B, d, h, w, C₁ in eights)
    coarse_depth: int
    coarse_height: int
    coarse_width: int
    factor: int  # voxels along each axis that share a coarse one
    planes_before: int  # the plane of the coarse sums' grid, in voxels, at which the source begins
