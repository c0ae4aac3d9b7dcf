"""How the tiles of a volume are shared out to the threads, and the memory that these have in Winograd's domain.

A page that the system gives anew costs as much as the arithmetic on it, so memory is used again: the tiles' for as long
as the Python thread lives, one to two megabytes for each thread of the team, and that of a backward pass for as long as
the pass lasts, since it grows with the square of the channels.
"""

from __future__ import annotations

import functools
import math
import threading
import weakref
from typing import Any

import torch
from torch.autograd import Variable

from rarevox.networks.cpu.instructions.sizes import BLOCK_ROWS, LINE_BYTES
from rarevox.networks.cpu.winograd.job import place_stride
from rarevox.networks.cpu.winograd.toom_cook import PLACES, TILE


class _Memory(threading.local):
    kept: torch.Tensor | None = None
    of_pass: weakref.ref[torch.Tensor] | None = None


_memory = _Memory()


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


def kept_memory(length: int) -> torch.Tensor:
    """At least so many bytes of memory, from a line of the cache on: the same at each call, with anything in it.

    >>> kept_memory(100).data_ptr() == kept_memory(50).data_ptr()
    True
    """
    if _memory.kept is None or _memory.kept.numel() < length:
        _memory.kept = _new(length)
    return _memory.kept


def memory_of_pass(length: int) -> torch.Tensor:
    """`kept_memory` that is the same for the layers of one backward pass, and given back when it ends.

    Outside of a backward pass it is the caller's alone.
    """
    held = None if _memory.of_pass is None else _memory.of_pass()
    if held is None or held.numel() < length:
        held = _new(length)
        # The engine keeps what is to be called at the end of a pass, and so the memory, also of a pass that fails; a
        # callback that frees it would not be called then.
        try:
            Variable._execution_engine.queue_callback(functools.partial(_hold, held))
        except RuntimeError:  # no pass is running
            return held
        _memory.of_pass = weakref.ref(held)
    return held


def _hold(memory: Any) -> None:
    """Nothing but a reference."""


def _new(length: int) -> torch.Tensor:
    memory = torch.empty(length + LINE_BYTES, dtype=torch.uint8)
    return memory[-memory.data_ptr() % LINE_BYTES :]
