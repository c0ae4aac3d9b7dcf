"""Volumes on their way to a GPU: through pinned memory, beside what the host and the device do meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from monai.data import MetaTensor


def in_pinned_memory(image: MetaTensor) -> MetaTensor:
    """An image copied into memory that a GPU reads by itself, with all that is known of it."""
    if image.is_pinned():
        return image
    pinned = image.as_tensor().pin_memory()
    return MetaTensor(pinned, meta=image.meta, applied_operations=image.applied_operations)


def sent(image: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A volume on a GPU, where it is cut into blocks; the host goes on meanwhile. On a CPU it stays where it is."""
    if device.type != "cuda" or image.is_cuda:
        return image
    image = image if image.is_pinned() else image.pin_memory()
    return image.to(device, non_blocking=True)


def on_device_blocks(block: Callable[[int], torch.Tensor], count: int, device: torch.device) -> Iterator[torch.Tensor]:
    """``block(0)``, ``block(1)`` … on the device.

    On CUDA a block of host memory goes through pinned memory and a stream of its own. The next one is cut and sent when
    the caller asks for it, which is after it has queued the work on this one: so the copy runs beside that work, and
    two blocks at most are on the device.
    """
    if device.type != "cuda":
        for number in range(count):
            yield block(number).to(device)
        return
    stream = torch.cuda.Stream(device)
    for number in range(count):
        host = block(number)
        if host.device.type == "cuda":
            yield host.to(device)
            continue
        host = host.pin_memory()
        with torch.cuda.stream(stream):
            sent = host.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        sent.record_stream(current)
        yield sent
        # `host` is freed only now; the caching allocator of pinned memory keeps it until the copy is done.
