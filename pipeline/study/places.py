"""Where the cells of a study run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from rarevox.pipeline.cores import cores
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.job import Job, Outcome


@dataclass(frozen=True)
class Places:
    """The options that say where cells run, of the command line.

    Attributes:
        workers: processes on this machine; None is one for each ``threads`` of its cores, on CUDA one.
        engine: ``local`` or ``ray``.
        address: of a Ray cluster; None is one of this machine's own, made for the call.
        cpus_per_cell: of Ray; None is the cell's threads.
        gpus_per_cell: of Ray.
        cuda: whether the cells run on this machine's CUDA device.
    """

    workers: int | None = None
    engine: str = "local"
    address: str | None = None
    cpus_per_cell: float | None = None
    gpus_per_cell: float = 0.0
    cuda: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise RequestError(f"--engine is {self.engine}; expected local or ray")
        if self.engine == "ray" and self.workers is not None:
            raise RequestError("--workers is of --engine local; with ray give --cpus-per-cell and --gpus-per-cell")
        if self.engine == "local" and (self.address or self.cpus_per_cell or self.gpus_per_cell):
            raise RequestError("--address, --cpus-per-cell and --gpus-per-cell are of --engine ray; add that")

    def at_once(self, threads: int) -> int:
        """How many cells run at once on this machine; on a cluster, what a process for each of these cores would."""
        if self.workers is not None:
            return self.workers
        return 1 if self.cuda else max(1, cores() // threads)


def on_cuda(device: str) -> bool:
    """Whether a device by its name is this machine's CUDA device."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def run_jobs(jobs: Sequence[Job], places: Places, threads: int) -> Iterator[Outcome]:
    """Run jobs in their places; outcomes as they come."""
    if not jobs:
        return
    if places.engine == "ray":
        from rarevox.pipeline.study.engines.on_ray import run_on_ray

        cpus = threads if places.cpus_per_cell is None else places.cpus_per_cell
        yield from run_on_ray(jobs, address=places.address, cpus=cpus, gpus=places.gpus_per_cell)
        return
    from rarevox.pipeline.study.engines.workers import run_locally

    yield from run_locally(jobs, workers=places.at_once(threads))
