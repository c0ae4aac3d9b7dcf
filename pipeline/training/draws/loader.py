"""The endless loader of a run: which process makes which draws, and how batches come from worker processes.

Draws are numbered, and a draw depends on its number alone (:mod:`rarevox.pipeline.training.draws.patch_dataset`); a
resumed run therefore goes on exactly where it stopped, with any number of workers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from statistics import median
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rarevox.pipeline.console import console
from rarevox.pipeline.cores import cores
from rarevox.pipeline.training.draws.patch_dataset import Batch, PatchDataset, collate
from rarevox.pipeline.training.draws.shared_batches import Buffer, NumberedBatches, SharedBatch, SharedBuffers
from rarevox.pipeline.training.draws.workers import leave_signals_to_the_trainer
from rarevox.pipeline.words import counted
from rarevox.transforms.reading.geometry import size_text


class DrawSampler(Sampler[int]):
    """The numbers of the draws that this process makes, without end: of each step a batch of those that follow on.

    So the draws of all processes together are those of a single one: with batches of b patches in each of w
    processes, step i trains on the same patches as one process with batches of b·w. Which part of a step a process
    takes goes round from step to step: patches with and without foreground take turns, and of every w-th draw a process
    would see one kind alone, also with batches of one.

    Args:
        start: draws that this process has already made; a resumed run sets it to steps × batch size.
        batch_size: patches in a batch of this process.
        rank: the number of this process.
        world_size: how many processes train together.

    Raises:
        ValueError: the rank is not one of the processes.

    >>> from itertools import islice
    >>> list(islice(DrawSampler(2, batch_size=2, rank=1, world_size=2), 4))  # of 4 … 7 the first, of 8 … 11 the last
    [4, 5, 10, 11]
    """

    def __init__(self, start: int = 0, *, batch_size: int = 1, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size} processes; expected 0 to {world_size - 1}")
        self.start = start
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[int]:
        """Count."""
        number = self.start
        while True:
            step, place = divmod(number, self.batch_size)
            part = step * self.world_size + (self.rank + step) % self.world_size
            yield part * self.batch_size + place
            number += 1


class PatchLoader:
    """The endless batches of a run, drawn in this process or by workers that write them into shared memory.

    Args:
        dataset: the draws.
        batch_size: patches in a batch of this process.
        sampler: which draws this process makes; its ``start`` is set on resuming.
        workers: how many processes draw; None draws the first batches in this process, takes their time and that of
            the steps between them, and goes on with as many as :func:`workers_for` says. Batches are the same.
        pin: give them in pinned memory.
    """

    def __init__(
        self, dataset: PatchDataset, batch_size: int, sampler: DrawSampler, workers: int | None, pin: bool
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.measures = workers is None
        self._pins = pin
        self._open(workers or 0)

    def _open(self, workers: int) -> None:
        """Make what loads, with a number of processes, which begin with the first batch asked for."""
        dataset, batch_size, sampler, pin = self.dataset, self.batch_size, self.sampler, self._pins
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
            # From the global generator each iterator would take a number: dropout of a run that was resumed, or whose
            # loader was opened anew after measuring, would be another than that of one that was not.
            generator=torch.Generator(),
        )
        self.pin = pin and self.buffers is not None

    def __iter__(self) -> Iterator[Batch]:
        """Batches as dictionaries of plain tensors."""
        if self.measures:
            self.measures = False
            drawing, steps = [], []
            batches = self._batches()
            for _ in range(WARMING + MEASURED):
                began = time.perf_counter()
                batch = next(batches)
                drawn = time.perf_counter()
                yield batch
                drawing.append(drawn - began)
                steps.append(time.perf_counter() - drawn)
            self.sampler.start += (WARMING + MEASURED) * self.batch_size
            self._open(_told(median(drawing[WARMING:]), median(steps[WARMING:])))
        yield from self._batches()

    def _batches(self) -> Iterator[Batch]:
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


# Batches by which the time of drawing is learnt, after some in which kernels are compiled and tried out.
WARMING, MEASURED = 3, 7
# A step may wait this share of its time for its patches; processes for less would not be worth their memory.
IDLE = 0.05


def workers_for(draw_seconds: float, step_seconds: float, cores: int) -> int:
    """Processes that draw as fast as steps are taken, a quarter faster, and leave a core to the training process.

    None where a step hardly waits; with cases cut on a device drawing is the step's own.

    >>> workers_for(draw_seconds=0.040, step_seconds=0.015, cores=16)  # 0.040 / 0.015 · 1.25 = 3.3
    4
    >>> workers_for(0.0005, 0.015, cores=16), workers_for(0.5, 0.01, cores=8), workers_for(0.5, 0.01, cores=1)
    (0, 7, 0)
    """
    if draw_seconds <= IDLE * step_seconds or cores < 2:
        return 0
    return min(math.ceil(1.25 * draw_seconds / step_seconds), cores - 1)


def _told(draw_seconds: float, step_seconds: float) -> int:
    """The processes for these times on this machine, told where there are any."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = workers_for(draw_seconds, step_seconds, cores() // local)
    if workers:
        console.print(
            f"drawing a batch takes {1000 * draw_seconds:.0f} ms and a step {1000 * step_seconds:.0f} ms: "
            f"{counted(workers, 'loader process', 'loader processes')} from here on (--set workers=N)"
        )
    return workers


def _tell_what_is_full(dataset: PatchDataset) -> None:
    """Say where a share of patches without foreground is asked for, and there are none."""
    full = len(dataset.full_of_foreground())
    if full and dataset.patch is not None:
        size = f"{size_text(dataset.patch.frame.size)} voxels without foreground"
        if full == len(dataset.data):
            said = f"no training case has a patch of {size}, so that all patches hold some"
        else:
            has, its = ("has", "its") if full == 1 else ("have", "their")
            which = f"{counted(full, 'training case')} of {len(dataset.data)}"
            said = f"{which} {has} no patch of {size}, and {its} patches all hold some"
        console.say("[yellow]background_share[/yellow]: {}; a smaller patch_size leaves room for them", said)


def patch_loader(
    dataset: PatchDataset,
    batch_size: int,
    *,
    workers: int | str = 0,
    device: torch.device | str = "cpu",
    rank: int | None = None,
    world_size: int | None = None,
) -> PatchLoader:
    """The endless loader of a run.

    Args:
        dataset: the draws.
        batch_size: patches in a batch of this process.
        workers: loader processes; 0 draws in the training process, which is right for cached cases on a CPU, where
            they would take the cores from the step. ``auto`` is 0 on a CPU and by measurement on CUDA.
        device: pinned memory is used for CUDA. Cases held on a device are cut there, by this process.
        rank: the number of this process; None asks torch.distributed, where it has been started.
        world_size: how many processes train together; None likewise.
    """
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if started else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if started else 1
    if rank == 0:
        _tell_what_is_full(dataset)
    on_cuda = torch.device(device).type == "cuda"
    count = (None if on_cuda else 0) if workers == "auto" else int(workers)
    sampler = DrawSampler(batch_size=batch_size, rank=rank, world_size=world_size)
    return PatchLoader(
        dataset, batch_size, sampler, 0 if dataset.on_device else count, on_cuda and not dataset.on_device
    )
