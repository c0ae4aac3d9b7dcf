"""Pieces of a volume worked on by several threads, each piece by one thread from its first operation to its last."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

# Scratch memory is kept for pieces up to twice the usual size (`chunks.CPU_PIECE_ELEMENTS`); a piece is larger where a
# single row of a volume that does not flatten is.
LARGEST_SCRATCH_ELEMENTS = 1 << 20


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.kept: dict[tuple[str, torch.dtype], Tensor] = {}


_buffers = _Buffers()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = threading.Lock()


def each_piece(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> list[Result]:
    """``work`` of every item, in order, by ``threads`` threads without gradients.

    PyTorch would share every single operation among its threads and wait for all of them after each. A loss has some
    800 short operations a step; when anything else runs on the cores (the data loader does), a wait lasts until the
    scheduler comes round, and a step of 60 ms took 6 s. Whole pieces wait for one another once, at the end.

    Raises:
        Exception: whatever ``work`` raised first.

    >>> each_piece(lambda value: 2 * value, range(5), threads=2)
    [0, 2, 4, 6, 8]
    """
    todo = list(items)
    if threads <= 1 or len(todo) <= 1:
        with torch.no_grad():
            return [work(item) for item in todo]
    results: dict[int, Result] = {}
    # next() of a count is one step of the interpreter, so no two threads are given the same number.
    numbers = itertools.count()

    def take_pieces() -> None:
        with torch.no_grad():
            while (number := next(numbers)) < len(todo):
                results[number] = work(todo[number])

    futures = [_pool(threads).submit(take_pieces) for _ in range(min(threads, len(todo)))]
    for future in futures:
        future.result()
    return [results[number] for number in range(len(todo))]


def _pool(threads: int) -> ThreadPoolExecutor:
    """A standing pool whose threads run PyTorch's operations alone; a forked process makes its own."""
    key = (os.getpid(), threads)
    with _making:
        if key not in _pools:
            _pools[key] = _single_threaded_pool(threads)
        return _pools[key]


def _single_threaded_pool(threads: int) -> ThreadPoolExecutor:
    # The number of threads belongs to the thread that sets it, but a thread takes over the last one set anywhere when
    # it first looks; so each worker looks first, then sets its own, and the common one is set back here at the end.
    wanted = torch.get_num_threads()
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="losses", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(wanted)
    return pool


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised contiguous tensor, valid until its thread asks for the same name again.

    The pages of a buffer that is freed go back to the system and come back one fault at a time, 2 µs for 4 KiB, so
    each thread keeps its few buffers of one piece. Large pieces and other devices get fresh memory.

    >>> scratch("example", (2, 3), torch.float32, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    elements = math.prod(shape)
    if device.type != "cpu" or elements > LARGEST_SCRATCH_ELEMENTS:
        return torch.empty(shape, dtype=dtype, device=device)
    buffers = _buffers.kept
    key = (name, dtype)
    whole = buffers.get(key)
    if whole is None or whole.numel() < elements:
        whole = buffers[key] = torch.empty(elements, dtype=dtype)
    return whole[:elements].view(shape)
