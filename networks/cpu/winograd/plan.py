"""How the tiles of a volume are shared out to the threads, and the memory that these have in Winograd's domain."""

from __future__ import annotations

import math
import threading

import torch

from rarevox.networks.cpu.instructions.sizes import BLOCK_ROWS, LINE_BYTES
from rarevox.networks.cpu.winograd.job import place_stride
from rarevox.networks.cpu.winograd.toom_cook import PLACES, TILE

# Memory up to this size stays with the thread that asked for it, for a page that the system gives anew costs as much as
# the arithmetic on it; more is given back after each use.
KEPT_BYTES = 2**25
_memory = threading.local()


class Plan:
    """How the tiles of a volume are shared out.

    Args:
        target: (B, D, H, W, C), the volume that the tiles of 4³ voxels cover.
        most: tiles that a thread should take at a time at most.
        threads: that may take part, at most.
    """

    def __init__(self, target: torch.Tensor, most: int, threads: int | None = None) -> None:
        self.threads = min(torch.get_num_threads(), threads or torch.get_num_threads())
        self.tiles = target.shape[0] * math.prod(-(-length // TILE) for length in target.shape[1:4])
        # The products take six tiles at a time; every thread should have two groups at least.
        most_blocks, blocks = most // BLOCK_ROWS, -(-self.tiles // (2 * self.threads * BLOCK_ROWS))
        self.group = max(1, min(most_blocks, blocks)) * BLOCK_ROWS

    def domain_bytes(self, *tile_bytes: int) -> int:
        """Bytes that one thread needs for its tiles, in one domain for each of ``tile_bytes`` (those of a place)."""
        return sum(PLACES * place_stride(one, self.group) for one in tile_bytes)


def memory(name: str, length: int) -> torch.Tensor:
    """Memory of this Python thread under a name, at least so many bytes, from a line of the cache on.

    Up to `KEPT_BYTES` it is the same at each call, so that what was there before is overwritten.

    >>> memory("doctest", 100).data_ptr() == memory("doctest", 50).data_ptr()
    True
    """
    held = getattr(_memory, name, None)
    if held is not None and held.numel() >= length:
        return held
    held = torch.empty(length + LINE_BYTES, dtype=torch.uint8)
    held = held[-held.data_ptr() % LINE_BYTES :]
    if length <= KEPT_BYTES:
        setattr(_memory, name, held)
    return held


def kept_bytes() -> int:
    """What this Python thread keeps of `memory`."""
    return sum(one.untyped_storage().nbytes() for one in vars(_memory).values())
