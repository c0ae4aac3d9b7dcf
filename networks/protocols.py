"""What execution asks of the parts of networks, without knowing the networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import nn

Reduction = Callable[[torch.Tensor], torch.Tensor]
"""Logits (B, C, *piece) to (B, C', *piece), voxel by voxel."""


class NormAct(Protocol):
    """A norm and the activation after it."""

    @property
    def norm(self) -> nn.Module:
        """The norm."""

    @property
    def activation(self) -> nn.Module:
        """The activation."""


class NormActPair(NamedTuple):
    """`NormAct` of two modules that belong to another one."""

    norm: nn.Module
    activation: nn.Module


class ValidLayer(Protocol):
    """A layer of valid 3³ convolutions: it loses a voxel at every face."""

    def __call__(
        self, x: torch.Tensor, out: torch.Tensor | None = None, add: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, C, *spatial) to (B, C', *spatial − 2), in the memory of ``out`` and with ``add`` if given."""

    @property
    def out_channels(self) -> int:
        """C'."""
