"""The engine of a cluster: cells as tasks of Ray, on one machine or many that share the folders."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.study.engines.queue import AGAIN_SECONDS, Queue, failed
from rarevox.pipeline.study.job import Job, Outcome

ANSWER_SECONDS = 10.0
"""So long a cluster may take to answer."""
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
    ray = _connected(address)
    try:
        _require_room(ray, cpus, gpus)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(attempt)
        yield from _outcomes(ray, task, Queue(jobs), width=int(ray.cluster_resources().get("CPU", 1) / cpus) + 4)
    finally:
        ray.shutdown()


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise RequestError("--engine ray needs the package ray; pip install 'rarevox[ray]'") from None
    if ray.is_initialized():
        raise RequestError("this process is connected to a Ray cluster already; end that connection first")
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, OSError) as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {reason_of(error)}") from error
    return ray


def _require_answer(address: str | None) -> None:
    """Refuse an address at which nobody listens, which Ray would go on calling for minutes."""
    host, colon, port = (address or "").rpartition("//")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {error.strerror or error}") from error


def _require_room(ray: Any, cpus: float, gpus: float) -> None:
    """Refuse what no node can ever give, for which Ray would wait without end."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        most = max((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
        raise RequestError(
            f"a cell takes {cpus:g} CPUs and {gpus:g} GPUs, and the largest node has {most[0]:g} and {most[1]:g}; "
            "give less with --cpus-per-cell and --gpus-per-cell"
        )


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
