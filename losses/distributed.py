"""Sums over the processes of a distributed run: the table adds up, so a batch-wide loss sees every process's batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from rarevox.losses.sums import SumTable

_apart = False


@contextmanager
def apart() -> Iterator[None]:
    """Inside, a loss sees this process's batch alone: for one that a single process computes, the others not waiting.

    >>> table = SumTable(*torch.ones(9, 1, 2).unbind(0))
    >>> with apart():
    ...     pool_processes(table) is table
    True
    """
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def pool_processes(table: SumTable) -> SumTable:
    """The table summed over all processes of the default group; unchanged outside a distributed run and :func:`apart`.

    Every process then computes the same loss. DistributedDataParallel averages the gradients over the processes,
    while the gradient of a loss of summed tables is their sum; the backward pass therefore multiplies by the number
    of processes, and the averaged gradient is that of the whole batch.

    >>> table = SumTable(*torch.ones(9, 1, 2).unbind(0))
    >>> pool_processes(table) is table  # one process
    True
    """
    started = distributed.is_available() and distributed.is_initialized()
    if _apart or not started or distributed.get_world_size() == 1:
        return table
    return SumTable(*_AllSum.apply(torch.stack(tuple(table))).unbind(0))


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * distributed.get_world_size()
