"""Pieces of a volume worked on by several threads, each piece by one thread from its first operation to its last."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_SCRATCH_ELEMENTS = 1 << 20

_buffers = threading.local()
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
    # The number of threads belongs to the thread that sets it, but new threads start from the last one set anywhere;
    # so it is set back here once every worker has started.
    wanted = torch.get_num_threads()
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="losses", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(wanted)
    return pool


def scratch(name: str, like: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of ``like``'s shape and type, valid until its thread asks for it again.

    The pages of a buffer that is freed go back to the system and come back one fault at a time: of 45 ms a step, 10
    were faults. So each thread keeps its few buffers of one piece. Large pieces and other devices get fresh memory.

    >>> scratch("example", torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    if like.device.type != "cpu" or like.numel() > LARGEST_SCRATCH_ELEMENTS:
        return torch.empty(like.shape, dtype=like.dtype, device=like.device)
    kept = _buffers.__dict__
    key = f"{name} {like.dtype}"
    if key not in kept or kept[key].numel() < like.numel():
        kept[key] = torch.empty(like.numel(), dtype=like.dtype)
    whole: Tensor = kept[key]
    return whole[: like.numel()].view(like.shape)
