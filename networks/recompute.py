"""Activation checkpointing that leaves running statistics as one pass leaves them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *arguments: Any) -> torch.Tensor:
    """``module(*arguments)`` that keeps only its inputs and computes the rest again in the backward pass.

    The outputs, gradients and running statistics are those of a plain call: the second pass normalises by the batch
    but does not update the statistics again, which `torch.utils.checkpoint` alone would do.

    >>> recomputed(nn.BatchNorm2d(2), torch.randn(2, 2, 4, 4, requires_grad=True)).shape
    torch.Size([2, 2, 4, 4])
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _FrozenStatistics(module)

    return checkpoint(module, *arguments, use_reentrant=False, context_fn=contexts)


class _FrozenStatistics(AbstractContextManager[None]):
    """Batch norms of ``module`` update copies of their running statistics, which are then thrown away.

    A class, since it is entered again for every backward pass over one graph (``retain_graph=True``).
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [dict(norm._buffers) for norm in self.norms]
        for norm in self.norms:
            norm._buffers.update({name: None if b is None else b.clone() for name, b in norm._buffers.items()})

    def __exit__(self, *_: Any) -> None:
        for norm, buffers in zip(self.norms, self.before, strict=True):
            norm._buffers.update(buffers)
