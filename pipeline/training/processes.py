"""The processes of one training under ``torchrun``; alone, every function here does nothing or answers for one."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def count() -> int:
    """How many processes train together.

    >>> count(), rank(), is_first()
    (1, 0, True)
    """
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def agree(value: float) -> float:
    """The largest of the processes' values: what one alone has noticed (a signal, a clock) all act upon.

    >>> agree(3.0)
    3.0
    """
    if count() == 1:
        return float(value)
    found = torch.tensor(float(value), dtype=torch.float64, device=_device())
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return float(found)


def gather(content: Any) -> list[Any]:
    """What each process gives, plain values and tensors, in the order of the ranks.

    >>> gather("a")
    ['a']
    """
    if count() == 1:
        return [content]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, content)
    return found


def _device() -> torch.device:
    """Where the backend takes tensors from."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
