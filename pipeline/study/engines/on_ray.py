"""The engine of a cluster: cells as tasks of Ray, on one machine or many that share the folders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import reason_of
from rarevox.pipeline.study.engines.queue import AGAIN_SECONDS, Queue, failed
from rarevox.pipeline.study.job import Job, Outcome
from rarevox.pipeline.workers.ray_cluster import connected, require_room

RETRIES = 3
"""A cell whose node was lost comes to another node so often."""


def run_on_ray(jobs: Sequence[Job], *, address: str | None, cpus: float, gpus: float) -> Iterator[Outcome]:
    """Run jobs as tasks of a Ray cluster; outcomes as they come, one for each job that was tried to its end.

    The nodes must reach the folders of study and dataset under the same names, on a shared file system. A cell whose
    node is lost goes on, on another one, from its checkpoint. Ray keeps its processes, so that a cell costs its steps.

    Args:
        jobs: in order.
        address: of the cluster; None starts one on this machine, which ends with the call.
        cpus: of a cell.
        gpus: of a cell.

    Raises:
        RequestError: Ray is not installed, no such cluster, or none of its nodes has so much.
    """
    ray = connected(address)
    try:
        require_room(ray, cpus, gpus, what="a cell", remedy="give less with --cpus-per-cell and --gpus-per-cell")
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(attempt)
        yield from _outcomes(ray, task, Queue(jobs), width=int(ray.cluster_resources().get("CPU", 1) / cpus) + 4)
    finally:
        ray.shutdown()


def _outcomes(ray: Any, task: Any, queue: Queue, width: int) -> Iterator[Outcome]:
    """Hand out, no more than the cluster has room for, and take in what comes."""
    running: dict[Any, Job] = {}
    try:
        while queue or running:
            while len(running) < width and (job := queue.take()) is not None:
                running[task.remote(job)] = job
            if not running:
                time.sleep(AGAIN_SECONDS)
                continue
            ready, _ = ray.wait(list(running), num_returns=1, timeout=AGAIN_SECONDS)
            for reference in ready:
                job = running.pop(reference)
                outcome = _settled(ray, reference, job, queue)
                if outcome is not None:
                    yield outcome
    finally:
        for reference in running:
            with suppress(Exception):  # the cluster may be what has gone
                ray.cancel(reference)
        if running:
            with suppress(Exception):
                ray.wait(list(running), num_returns=len(running), timeout=60)


def _settled(ray: Any, reference: Any, job: Job, queue: Queue) -> Outcome | None:
    try:
        return queue.settle(job, ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        return failed(job, f"{type(error.cause).__name__}: {reason_of(error.cause)}")
    except ray.exceptions.RayError as error:
        return failed(job, f"its process was lost {RETRIES + 1} times: {reason_of(error)}")


def attempt(job: Job) -> Outcome:
    """Run a cell on a node."""
    from rarevox.pipeline.study.cell.run import run_cell

    for folder in (job.study, job.dataset):
        if not Path(folder).is_dir():
            import platform

            return Outcome(job.cell.name, "unwritten", f"{platform.node()} does not reach {folder}")
    return run_cell(job)
