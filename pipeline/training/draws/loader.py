"""The endless loader of a run: which process makes which draws, and how batches come from worker processes.

Draws are numbered, and a draw depends on its number alone (:mod:`rarevox.pipeline.training.draws.patch_dataset`); a
resumed run therefore goes on exactly where it stopped, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rarevox.pipeline.training.draws.patch_dataset import Batch, PatchDataset, collate
from rarevox.pipeline.training.draws.shared_batches import Buffer, NumberedBatches, SharedBatch, SharedBuffers
from rarevox.pipeline.training.draws.workers import leave_signals_to_the_trainer


class DrawSampler(Sampler[int]):
    """The numbers of the draws that this process makes, without end: every ``world_size``-th from ``rank`` on.

    So the draws of all processes together are those of a single one: with batches of b patches in each of w
    processes, step i trains on the same patches as one process with batches of b·w.

    Args:
        start: draws that this process has already made; a resumed run sets it to steps × batch size.
        rank: the number of this process.
        world_size: how many processes train together.

    Raises:
        ValueError: the rank is not one of the processes.

    >>> from itertools import islice
    >>> list(islice(DrawSampler(2, rank=1, world_size=2), 3))
    [5, 7, 9]
    """

    def __init__(self, start: int = 0, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size} processes; expected 0 to {world_size - 1}")
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[int]:
        """Count."""
        number = self.start
        while True:
            yield number * self.world_size + self.rank
            number += 1


class PatchLoader:
    """The endless batches of a run, drawn in this process or by workers that write them into shared memory.

    Attributes:
        sampler: which draws this process makes; its ``start`` is set on resuming.
        batch_size: patches in a batch of this process.
    """

    def __init__(self, dataset: PatchDataset, batch_size: int, sampler: DrawSampler, workers: int, pin: bool) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.num_workers = workers
        size = dataset.batch_bytes(batch_size) if workers else 0
        # Batches on their way (two a worker), the one in use, the one before it, and one being pinned.
        self.buffers = SharedBuffers(2 * workers + 3, size) if size else None
        self.loader: DataLoader[Any] = DataLoader(
            cast(Dataset[Any], _BatchMaker(dataset, self.buffers)),
            batch_sampler=cast(Any, NumberedBatches(sampler, batch_size, self.buffers)),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin and self.buffers is None,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_the_trainer if workers else None,
        )
        self.pin = pin and self.buffers is not None

    def __iter__(self) -> Iterator[Batch]:
        """Batches as dictionaries of plain tensors."""
        for made in self.loader:
            if isinstance(made, SharedBatch) and self.buffers is not None:
                made = made.tensors(self.buffers.lease(made.number))
            yield {key: value.pin_memory() for key, value in made.items()} if self.pin else made


class _BatchMaker:
    """What a worker runs: makes the batch in its buffer."""

    def __init__(self, dataset: PatchDataset, buffers: SharedBuffers | None) -> None:
        self.dataset = dataset
        self.buffers = buffers

    def __getitems__(self, wanted: tuple[int, list[int]]) -> Batch | SharedBatch:
        number, draws = wanted
        if self.buffers is None or number < 0:
            return self.dataset.__getitems__(draws)
        buffer = Buffer(self.buffers.memory[number])
        batch = self.dataset.batch(draws, buffer.allocate)
        return SharedBatch(number, {key: buffer.place(value) for key, value in batch.items()})


def patch_loader(
    dataset: PatchDataset,
    batch_size: int,
    *,
    workers: int = 0,
    device: torch.device | str = "cpu",
    rank: int | None = None,
    world_size: int | None = None,
) -> PatchLoader:
    """The endless loader of a run.

    Args:
        dataset: the draws.
        batch_size: patches in a batch of this process.
        workers: loader processes; 0 draws in the training process, which is right for cached cases on a CPU.
        device: pinned memory is used for CUDA. Cases held on a device are cut there, by this process.
        rank: the number of this process; None asks torch.distributed, where it has been started.
        world_size: how many processes train together; None likewise.
    """
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if started else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if started else 1
    pin = torch.device(device).type == "cuda" and not dataset.on_device
    sampler = DrawSampler(rank=rank, world_size=world_size)
    return PatchLoader(dataset, batch_size, sampler, 0 if dataset.on_device else workers, pin)
