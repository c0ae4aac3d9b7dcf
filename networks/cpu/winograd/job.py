"""The jobs of Winograd's kernels, field by field, and how their memory is laid out; importing this needs no Numba.

Python fills a job by keyword and a kernel reads it by name (`rarevox.networks.cpu.instructions.jobs`). Fields are
int64: addresses, 0 for what is not there; sizes in voxels; strides in floats unless they say bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from rarevox.networks.cpu.instructions.sizes import LINE_BYTES


def place_stride(tile_bytes: int, tiles: int) -> int:
    """Bytes from one of the 216 places of a group of tiles in the domain to the next: an odd number of cache lines.

    A tile is read and written place by place. A power of two would put all its places into a few sets of the cache, and
    the way into the domain would take three times as long; an odd number of lines spreads them over all sets.

    >>> place_stride(64, 6), place_stride(64, 7)
    (448, 448)
    """
    return (-(-tile_bytes * tiles // LINE_BYTES) | 1) * LINE_BYTES


class Extent(NamedTuple):
    """How much of a sample lies inside the volume; the rest reads as zero and is written as zero."""

    depth: int
    height: int
    width: int


class CarryFilters(NamedTuple):
    """A job of `filters.carry_filters`: weights into the domain."""

    weight: int  # address, (C', C, 3, 3, 3) in any strides
    filters: int  # address, (panels, 216, C in eights, 16)
    in_channels: int
    out_channels: int
    out_stride_bytes: int
    in_stride_bytes: int
    depth_stride_bytes: int
    height_stride_bytes: int
    width_stride_bytes: int


class CarryGradient(NamedTuple):
    """A job of `filters.carry_gradient`: the sums of the weights' gradient out of the domain."""

    sums: int  # address, (slots, 216, C in eights, C' in eights)
    gradient: int  # address, (C', C, 3, 3, 3)
    slots: int
    in_channels: int
    out_channels: int


class Convolve(NamedTuple):
    """A job of `kernels.convolve`."""

    source: int  # address of the input, (B, D, H, W, C)
    depth: int  # of the input
    height: int
    width: int
    in_channels: int
    in_stride: int  # from one voxel to the next
    padding: int
    norm: int  # address, scale, shift and slope of each eight of channels, (eights, 3, 8)
    extents: int  # address of an `Extent` for each sample

    filters: int  # address, (panels, 216, C in eights, 16)

    target: int  # address of the output, (B, D', H', W', C')
    out_depth: int
    out_height: int
    out_width: int
    out_channels: int
    out_stride: int
    stream: int  # whether what is whole tiles and whole cache lines is written past the caches

    bias: int  # address, bias and slope of each eight of channels, (eights, 2, 8)
    add: int  # address of what is added, (B, D', H', W', add_channels), maybe a box out of a larger volume
    add_first: int  # the output channel to which its first one is added
    add_channels: int
    add_voxel_stride: int
    add_row_stride: int
    add_plane_stride: int
    add_sample_stride: int

    tiles: int  # of the whole output
    group: int  # tiles that a thread takes at a time
    domain: int  # address of the threads' memory
    domain_bytes: int  # of each thread's
    threads: int  # address of the number of the next thread to come


class Correlate(NamedTuple):
    """A job of `correlation.correlate`: what the input has to say is named as in `Convolve`."""

    source: int
    depth: int
    height: int
    width: int
    in_channels: int
    in_stride: int
    padding: int
    norm: int
    extents: int

    gradient: int  # address of the output's gradient, (B, D', H', W', C')
    out_depth: int
    out_height: int
    out_width: int
    out_channels: int

    sums: int  # address, (slots, 216, C in eights, C' in eights)
    tiles: int
    group: int
    domain: int
    domain_bytes: int  # of each slot's
    slots: int  # parts of the work, each with sums of its own
