"""How a group of tiles enters Winograd's domain, for the convolution and for the gradient of its weights alike.

Volumes are float32, (B, D, H, W, C), voxels evenly strided (`rarevox.networks.cpu.volumes`). In the domain a group of
tiles lies as (216, tiles, C in eights): for each place a matrix, as the products take it, ``place_stride`` bytes from
one to the next (`rarevox.networks.cpu.winograd.job.place_stride`). Tiles are numbered in the order of the output's
voxels, the samples one after another. Strides count bytes here. Needs Numba.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from rarevox.networks.cpu.instructions.jobs import record_reader
from rarevox.networks.cpu.instructions.sizes import FLOAT_BYTES, LANES, PANEL, VECTOR_BYTES
from rarevox.networks.cpu.instructions.vectors import in_eights
from rarevox.networks.cpu.winograd import job as winograd_job
from rarevox.networks.cpu.winograd.analysis import analyse
from rarevox.networks.cpu.winograd.job import Extent
from rarevox.networks.cpu.winograd.toom_cook import TILE

# Tiles side by side whose columns are shared on the way into the domain, as long as a cache holds them.
_TILES_AT_ONCE = 12
_EXTENT_BYTES = 8 * len(Extent._fields)
_extent_at = record_reader(Extent)
place_stride = njit(nogil=True, error_model="numpy")(winograd_job.place_stride)


@njit(nogil=True, error_model="numpy")
def tile_counts(job: Any) -> Any:
    """Tiles of the output along each axis."""
    return -(-job.out_depth // TILE), -(-job.out_height // TILE), -(-job.out_width // TILE)


@njit(nogil=True, error_model="numpy")
def corner_of(number: int, counts: Any) -> Any:
    """Sample and first voxel of a tile of the output."""
    z, y, x = counts
    return number // (z * y * x), (number // (y * x) % z * TILE, number // x % y * TILE, number % x * TILE)


@njit(nogil=True, error_model="numpy")
def byte_strides(sizes: Any, voxel_stride: int) -> Any:
    """Bytes from one voxel, row, plane and sample to the next, for voxels so many floats apart."""
    voxel = FLOAT_BYTES * voxel_stride
    return voxel, voxel * sizes[2], voxel * sizes[2] * sizes[1], voxel * sizes[2] * sizes[1] * sizes[0]


@njit(nogil=True, error_model="numpy")
def extent_of(extents: int, sample: int, sizes: Any) -> Any:
    """What of a sample lies inside: all of it, or what stands at its place in the table at ``extents``."""
    if extents == 0:
        return sizes[0], sizes[1], sizes[2]
    extent = _extent_at(extents + sample * _EXTENT_BYTES)
    return extent.depth, extent.height, extent.width


@njit(nogil=True, error_model="numpy")
def into_domain(job: Any, start: int, tiles: int, scratch: int, before: int, place_stride: int) -> None:
    """Windows of the tiles from number ``start`` on, all channels, to the domain at ``before``.

    Args:
        job: a `rarevox.networks.cpu.winograd.job.Convolve` or ``Correlate``.
        start: the first tile.
        tiles: how many.
        scratch: the thread's buffers.
        before: address.
        place_stride: bytes.
    """
    sizes, channels, counts = (job.depth, job.height, job.width), job.in_channels, tile_counts(job)
    in_rounded, strides = in_eights(channels), byte_strides(sizes, job.in_stride)
    # With room behind the channels of each voxel whole vectors are read. What is there goes along and ends in the
    # domain: the products stop at the last channel.
    readable = in_rounded if job.in_stride >= in_rounded else channels
    tile_stride = FLOAT_BYTES * in_rounded
    tile = 0
    while tile < tiles:
        sample, (z, y, x) = corner_of(start + tile, counts)
        corner = (z - job.padding, y - job.padding, x - job.padding)
        extent, volume = extent_of(job.extents, sample, sizes), job.source + sample * strides[3]
        # Where the channels left over are loaded by eights, nothing after the last sample may be read.
        end = volume + strides[3]
        run = min(tiles - tile, counts[2] - x // TILE, _TILES_AT_ONCE)
        for c in range(0, channels, PANEL):
            norm = job.norm + c // LANES * 3 * VECTOR_BYTES if job.norm != 0 else 0
            out, lanes = before + tile * tile_stride + FLOAT_BYTES * c, min(PANEL, readable - c)
            first = volume + FLOAT_BYTES * c
            analyse(first, end, corner, run, extent, strides, lanes, scratch, norm, out, tile_stride, place_stride)
        tile += run
