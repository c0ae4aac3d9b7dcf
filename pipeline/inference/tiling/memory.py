"""What a pass of a network needs in memory, what there is, and what to try when there was not enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from rarevox.pipeline.device import Precision, available_memory_gb, release_memory
from rarevox.pipeline.inference.tiling.tiles import Tile
from rarevox.pipeline.shortage import is_out_of_memory

Result = TypeVar("Result")

MOST_GB = 3.0
"""What the activations of one pass may take on a CPU at most."""


def activation_bytes(network: object, itemsize: int, reduced: bool = False) -> float:
    """Peak memory of a forward pass without gradients, bytes for each input voxel.

    A network may state it itself (``peak_bytes(itemsize, reduced)``, see `rarevox.networks.HighResNet`), for logits or
    where they are reduced a piece at a time (``reduced``). For the others it is estimated from the widest layer: a
    layer holds its input, its output and one temporary of either (normalisation, activation, padding), a residual
    connection one more, and full-resolution layers decide.
    """
    stated = network.peak_bytes(itemsize, reduced) if hasattr(network, "peak_bytes") else None
    if stated is not None:
        return float(stated)
    widest = 1
    modules = network.modules() if hasattr(network, "modules") else ()
    for module in modules:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            widest = max(widest, module.in_channels + module.out_channels)
    return 2.0 * widest * itemsize


def voxels_in_memory(
    network: object,
    device: torch.device,
    precision: Precision | None,
    memory_gb: float | None,
    reduced: bool = False,
    spare_bytes: int = 0,
) -> float:
    """Input voxels of one pass that a budget allows; None is half of what is free, at most 3 GB on a CPU.

    ``reduced``: the logits are reduced to labels within the network, a piece at a time. ``spare_bytes``: in use, but
    free where they are needed.
    """
    if memory_gb is None:
        memory_gb = (available_memory_gb(device) + spare_bytes / 1e9) / 2
        memory_gb = min(memory_gb, MOST_GB) if device.type == "cpu" else memory_gb
    itemsize = 4 if precision is None else precision.dtype.itemsize
    return memory_gb * 1e9 / activation_bytes(network, itemsize, reduced)


def usual_voxels(network: object) -> float:
    """Input voxels of one pass on a CPU of ample memory in float32: a measure that is the same on every machine."""
    return MOST_GB * 1e9 / activation_bytes(network, 4)


def tile_voxels(tiles: Sequence[Tile]) -> int:
    """Voxels of the largest input block."""
    return max(torch.Size(tile.size).numel() for tile in tiles)


@dataclass(frozen=True)
class Effort:
    """How much is asked of the memory at once.

    Attributes:
        voxels: input voxels of one pass, over its batch of tiles; of windows, whose size is given, 0.
        batch: tiles or windows of a pass.
        on_device: whether results gather where the network runs; else on the CPU.
        smaller: how often the tiles have been made smaller.
    """

    voxels: float
    batch: int = 1
    on_device: bool = True
    smaller: int = 0

    def less(self, largest: int | None) -> tuple[Effort, str] | None:
        """What to try after memory ran out, and in words; None where nothing is left to try.

        First single tiles or windows, then up to three times tiles of a quarter of the voxels, then the results on the
        CPU.

        Args:
            largest: input voxels of the largest tile; None for windows, which cannot be made smaller.
        """
        if self.batch > 1:
            what = "window" if largest is None else "tile"
            return replace(self, batch=1, voxels=self.voxels / self.batch), f"{what} batch {self.batch} to 1"
        if largest is not None and largest > 1 and self.smaller < 3:
            fewer = replace(self, voxels=max(largest / 4, 1), smaller=self.smaller + 1)
            return fewer, f"tiles of {largest} voxels to {int(fewer.voxels)}"
        if self.on_device:
            return replace(self, on_device=False), "results gathered on the CPU"
        return None


def with_less_each_time(
    effort: Effort,
    attempt: Callable[[Effort, list[str]], Result],
    largest: Callable[[Effort], int | None],
    device: torch.device,
    spare: Callable[[], bool] = lambda: False,
) -> Result:
    """What ``attempt`` gives, which is asked for less each time that memory runs out.

    Args:
        effort: of the first attempt.
        attempt: does the work with an effort; it is told the steps down that led there, in words.
        largest: input voxels of the largest tile of an effort, as :meth:`Effort.less` takes them.
        device: where memory is short; what can be given back is, before the next attempt.
        spare: gives back what is only held for later; where it says that there was something, no less is asked for.

    Raises:
        whatever ``attempt`` raises, but for a lack of memory while something is left to try.
    """
    steps: list[str] = []
    while True:
        try:
            return attempt(effort, steps)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            failed = error.with_traceback(None)
        # Only here has the error let go of the frames that hold the failed attempt's tensors; what comes next, laying
        # the tiles out among it, needs memory too.
        had = spare()
        release_memory(device)
        if had:
            continue
        less = effort.less(largest(effort))
        if less is None:
            raise failed
        effort, words = less
        steps = [*steps, words]
