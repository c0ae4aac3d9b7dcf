"""Where the training cases are held: the ``cache`` of a training configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rarevox.pipeline.console import console
from rarevox.pipeline.device import available_memory_gb
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.storage.disk_cases import DiskCases
from rarevox.pipeline.storage.prepare_case import case_bytes, compact, index_case
from rarevox.pipeline.storage.readable import LeftOut, ReadCases, each, require_sound
from rarevox.pipeline.words import counted

PLACES = ("auto", "memory", "disk", "device")
IMAGE_TYPES = {"float32": torch.float32, "float16": torch.float16}
MEMORY_SHARE = 0.5
"""With ``auto``, the share of the free memory that the cases may take."""
DEVICE_SHARE = 0.6
"""The share of the device's free memory that the cases may take; the network needs the rest."""


def training_cases(
    data: Sequence[dict[str, Any]],
    transform: Callable[[Any], Any],
    index: Callable[[Any], dict[str, Any]],
    *,
    cache: str = "auto",
    folder: str | Path,
    image_type: str = "float32",
    device: torch.device | str = "cpu",
    channels: int | None = None,
    workers: int = 2,
    keep_days: float | None = None,
    limit_gb: float | None = None,
) -> Sequence[dict[str, Any]]:
    """The prepared, indexed training cases. One that cannot be read is left out and told, and stops none of the rest;
    ``left`` of what is returned has a row of it.

    Args:
        data: the cases, file names by key.
        transform: the deterministic transforms.
        index: adds the sampler's index.
        cache: ``memory`` holds the cases in this process, ``disk`` in memory-mapped files (:class:`DiskCases`),
            ``device`` as tensors on the device, where patches are then cut. ``auto`` is ``memory`` where three cases
            say that all take at most half of the free memory, else ``disk``.
        folder: of ``disk``.
        image_type: ``float32`` or ``float16``; patches are float32 in any case.
        device: of ``device``.
        channels: of a scan; one with others is left out.
        workers: threads that prepare cases.
        keep_days: of ``disk``: entries that nothing has used for longer are removed.
        limit_gb: of ``disk``: the size that the folder has when a training begins, in GB.

    Raises:
        RequestError: an unknown place or type, or no case that can be read.
    """
    check_cache(cache, image_type)
    left = LeftOut("training cases")
    kind = IMAGE_TYPES[image_type]

    def prepared(number: int) -> dict[str, Any]:
        case = transform(data[number])
        require_sound(case, channels)
        return index_case(compact(case, kind), index)[0]

    def prepare(number: int) -> dict[str, Any] | None:
        return left.tried(number, lambda: prepared(number))

    done: dict[int, dict[str, Any]] = {}
    if cache == "auto":
        probes = sorted({0, len(data) // 2, len(data) - 1}) if data else []
        done = {number: case for number in probes if (case := prepare(number)) is not None}
        cache = _choose(list(done.values()), len(data))
    if cache == "disk":
        limits: dict[str, Any] = {"keep_days": keep_days, "limit_gb": limit_gb, "channels": channels}
        return DiskCases(data, transform, index, folder=folder, image_type=kind, workers=workers, **limits)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = each(pool, lambda number: done.get(number) or prepare(number), range(len(data)), "reading cases")
    left.kept(data)
    cases = [case for case in found if case is not None]
    read = ReadCases(on_device(cases, torch.device(device)) if cache == "device" else cases)
    read.left = left.rows(data)
    return read


def check_cache(cache: str, image_type: str) -> None:
    """Refuse an unknown place or type, before any data is read.

    Raises:
        RequestError: names the value and what was expected.
    """
    if cache not in PLACES:
        raise RequestError(f"cache is {cache!r}; expected {', '.join(PLACES)}")
    if image_type not in IMAGE_TYPES:
        raise RequestError(f"cache_type is {image_type!r}; expected {', '.join(IMAGE_TYPES)}")


def _choose(probes: list[dict[str, Any]], count: int) -> str:
    """``memory`` or ``disk``, and a line where it is not memory."""
    need = count * sum(map(case_bytes, probes)) / max(len(probes), 1) / 1e9
    free = available_memory_gb(torch.device("cpu"))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        free /= torch.distributed.get_world_size()
    if need <= MEMORY_SHARE * free:
        return "memory"
    cases = counted(count, "case takes", "cases take")
    console.print(f"cache: {cases} about {need:.1f} GB and {free:.1f} GB are free: cached on disk")
    return "disk"


def on_device(cases: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """The cases with their volumes on the device; where they do not fit, as they are, and a line says so."""
    need, free = sum(map(case_bytes, cases)) / 1e9, available_memory_gb(device)
    if device.type != "cpu" and need > DEVICE_SHARE * free:
        console.say(
            "[yellow]cache: the cases take {:.1f} GB and the device has {:.1f} GB free; they stay in memory "
            "(cache_type=float16 takes half)[/]",
            need,
            free,
        )
        return cases
    return [
        {
            key: value.to(device) if isinstance(value, torch.Tensor) and key != "affine" else value
            for key, value in c.items()
        }
        for c in cases
    ]
