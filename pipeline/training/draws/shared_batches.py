"""Batches that worker processes write where the training process reads them, instead of sending them.

A batch sent by PyTorch's loader costs a new shared file for each tensor: fresh pages on both sides and a file
descriptor passed through a socket. Here a few buffers are shared once, and each batch is made in one of them. A buffer
is used again when the last tensor of its batch has gone, so a batch may be kept for as long as it is needed.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

Allocate = Callable[[Sequence[int], torch.dtype, Any], torch.Tensor]
"""Memory for a tensor of this shape and type, on this device."""
ALIGNMENT = 64


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Ordinary memory, its content undefined."""
    return torch.empty(tuple(shape), dtype=dtype, device=device)


class Buffer:
    """One shared buffer, filled from its beginning.

    >>> buffer = Buffer(torch.zeros(256, dtype=torch.uint8))
    >>> buffer.allocate((2, 3), torch.float32, "cpu").shape, buffer.used
    (torch.Size([2, 3]), 24)
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.used = 0

    def allocate(self, shape: Sequence[int], dtype: torch.dtype, device: Any) -> torch.Tensor:
        """The next free part; ordinary memory where it does not fit or another device is asked for."""
        begin = -(-self.used // ALIGNMENT) * ALIGNMENT
        end = begin + math.prod(shape) * dtype.itemsize
        if torch.device(device).type != "cpu" or end > self.memory.numel():
            return allocate(shape, dtype, device)
        self.used = end
        return self.memory[begin:end].view(dtype).view(tuple(shape))

    def place(self, tensor: torch.Tensor) -> Any:
        """Where a tensor lies in this buffer, which it is copied into unless it is there; itself if it does not fit."""
        begin = tensor.data_ptr() - self.memory.data_ptr()
        if not (0 <= begin < self.memory.numel() and tensor.is_contiguous()):
            copy = self.allocate(tensor.shape, tensor.dtype, tensor.device)
            begin = copy.data_ptr() - self.memory.data_ptr()
            if not 0 <= begin < self.memory.numel():
                return tensor
            copy.copy_(tensor)
        return begin, tuple(tensor.shape), tensor.dtype


class SharedBatch:
    """What a worker sends of a batch: the buffer's number, and where in it each tensor lies."""

    def __init__(self, number: int, places: dict[str, Any]) -> None:
        self.number = number
        self.places = places

    def tensors(self, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        """The batch, as views of the memory."""
        return {key: _view(memory, place) for key, place in self.places.items()}


def _view(memory: torch.Tensor, place: Any) -> torch.Tensor:
    if isinstance(place, torch.Tensor):
        return place
    begin, shape, dtype = place
    end = begin + math.prod(shape) * dtype.itemsize
    return memory[begin:end].view(dtype).view(shape)


class SharedBuffers:
    """The buffers of one loader; worker processes get them when they start.

    Args:
        count: how many; a batch for which none is free is sent in PyTorch's way.
        size: bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self.memory = [torch.zeros(size, dtype=torch.uint8).share_memory_() for _ in range(count)]
        self.free = list(range(count))

    def __getstate__(self) -> dict[str, Any]:
        """A worker needs the memory alone."""
        return {"memory": self.memory, "free": []}

    def take(self) -> int:
        """The number of a free buffer, which counts as taken from now on; −1 where there is none."""
        return self.free.pop() if self.free else -1

    def lease(self, number: int) -> torch.Tensor:
        """The memory of a taken buffer; it is free again when this tensor and all its views have gone."""
        array = self.memory[number].numpy()
        weakref.finalize(array, self.free.append, number)
        return torch.from_numpy(array)  # keeps the array for as long as its storage lives


class NumberedBatches(Sampler[tuple[int, list[int]]]):
    """Batches of a sampler's draws, each with the buffer that it is to be made in."""

    def __init__(self, sampler: Sampler[int], batch_size: int, buffers: SharedBuffers | None) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.buffers = buffers

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Asked by the training process, just before a worker is told to make the batch."""
        draws = iter(self.sampler)
        while True:
            wanted = [next(draws) for _ in range(self.batch_size)]
            yield (self.buffers.take() if self.buffers is not None else -1), wanted
