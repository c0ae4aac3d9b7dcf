"""The processes of one training under ``torchrun``; alone, every function here does nothing or answers for one.

Every process runs the whole training on its share of the draws. The first (rank 0) composes the configuration, writes
and speaks; the others do as it does. Whatever a process notices on its own (a signal, its clock, a number that is not
finite) is agreed upon before anything depends on it, so that all take the same steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: longer than the first takes to learn a normalisation or to write."""


def start(device: str) -> None:
    """Join the processes that ``torchrun`` started: NCCL between CUDA devices, one each, and gloo between CPUs.

    Raises:
        RequestError: one device is named for several processes, or a machine has fewer devices than processes.
    """
    if not distributed.is_available() or distributed.is_initialized() or not distributed.is_torchelastic_launched():
        return
    if int(os.environ["WORLD_SIZE"]) == 1:
        return
    here, local = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    on_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if ":" in device:
        raise RequestError(f"--device {device} names one device for several processes; leave it out, or give cuda")
    if on_cuda:
        if torch.cuda.device_count() < here:
            found = torch.cuda.device_count()
            raise RequestError(f"{here} processes on a machine with {found} CUDA devices; start one for each device")
        torch.cuda.set_device(local)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
    console.quiet = not is_first()


def stop() -> None:
    """Part from the other processes at the end of a training that went well."""
    if count() > 1:
        distributed.destroy_process_group()


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


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; where it fails, the others leave with status 2 without a word."""
    if count() == 1:
        return make()
    found: list[Any] = [None, False]
    try:
        if is_first():
            found = [make(), True]
    finally:
        distributed.broadcast_object_list(found, src=0)
    if not found[1]:
        raise SystemExit(2)
    return found[0]  # type: ignore[no-any-return]


def agree(value: float) -> float:
    """The largest of the processes' values: what one alone has noticed all act upon.

    >>> agree(3.0)
    3.0
    """
    if count() == 1:
        return float(value)
    found = torch.tensor(float(value), dtype=torch.float64)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return float(found)


def mean(value: float) -> float:
    """The mean of the processes' values; NaN where one is.

    >>> mean(0.5)
    0.5
    """
    if count() == 1:
        return float(value)
    found = torch.tensor(float(value), dtype=torch.float64)
    distributed.all_reduce(found)
    return float(found) / count()


def mean_of(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    if count() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= count()


def gather(content: T) -> list[T]:
    """What each process gives, plain values and tensors of the CPU, in the order of the ranks.

    >>> gather("a")
    ['a']
    """
    if count() == 1:
        return [content]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, content)
    return found


def vary_seed(seed: int) -> None:
    """Once the network is built, and the same everywhere, let dropout differ between the processes."""
    if count() > 1:
        torch.manual_seed(seed + rank())


def share_of(items: Sequence[T]) -> list[T]:
    """Every so many-th item, beginning with the rank: this process's part of a list.

    >>> share_of([1, 2, 3])
    [1, 2, 3]
    """
    return list(items)[rank() :: count()]


def same_buffers(network: torch.nn.Module) -> None:
    """Give all processes the first one's buffers (running statistics), which each has moved with its own batches."""
    if count() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)


def together(network: torch.nn.Module) -> torch.nn.Module:
    """The network as the trainer calls it: its gradients are averaged over the processes; alone, itself.

    On CUDA, batch normalisation takes its statistics over the whole batch of all processes; on a CPU, for which
    PyTorch has no such layer, each process normalises by its own share.
    """
    if count() == 1:
        return network
    device = next(network.parameters()).device
    on_cuda = device.type == "cuda"
    if on_cuda:
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=[device] if on_cuda else None)
