"""Memory that the tensors of one pass take one after another."""

from __future__ import annotations

import torch

from rarevox.networks.cpu import volumes


class Spare:
    """Memory by name: a page that the system gives anew costs as much as the arithmetic on it.

    >>> spare = Spare()
    >>> first = spare.take("y", (1, 2, 3, 4, 5))
    >>> spare.take("y", (1, 1, 3, 4, 5)).data_ptr() == first.data_ptr()
    True
    """

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor of `rarevox.networks.cpu.volumes.channels_last` in the memory of the name."""
        length = volumes.numbers(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < length:
            memory = self._memory[name] = torch.empty(length)
        return volumes.channels_last(shape, memory)
