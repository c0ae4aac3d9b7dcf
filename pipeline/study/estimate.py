"""How long a study takes: steps timed on this machine, or the cells that are done."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rarevox.pipeline.study.checks import shape_of
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.rows import Row
from rarevox.pipeline.training.fit import timed

ENOUGH_SECONDS = 0.2
LONGEST_SECONDS = 20.0
"""After so long, what is left is estimated from what was timed."""


def step_seconds(
    shapes: Mapping[str, tuple[PlannedCell, Mapping[str, Any]]], threads: int, *, longest: float = LONGEST_SECONDS
) -> dict[str, float]:
    """Seconds of a training step of each combination of network, patch and batch.

    The smallest patches are timed first. Where ``longest`` is over, a step is taken to cost what a voxel of the same
    network's nearest patch cost.

    Args:
        shapes: of :func:`rarevox.pipeline.study.checks.check_cells`.
        threads: of a cell.
        longest: of the timing altogether, but for one more step and one for each network.
    """
    found: dict[str, float] = {}
    known: dict[Any, float] = {}  # network to seconds of a voxel
    before, began = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(threads)
    try:
        for shape, (cell, config) in sorted(shapes.items(), key=lambda item: math.prod(item[1][1]["patch_size"])):
            network, patch = (cell.settings.get("network"), str(config["network_def"])), config["patch_size"]
            if network not in known or time.monotonic() - began < longest:
                known[network] = timed(config, enough_seconds=ENOUGH_SECONDS)[0] / math.prod(patch)
            found[shape] = known[network] * math.prod(patch) * int(config["batch_size"])
    finally:
        torch.set_num_threads(before)
    return found


def planned_seconds(cells: Iterable[PlannedCell], steps: Mapping[str, float]) -> float:
    """Seconds of the cells one after the other, by timed steps."""
    total, usual = 0.0, statistics.fmean(steps.values()) if steps else 0.0
    for cell in cells:
        minutes = cell.settings.get("minutes")
        step = steps.get(shape_of(cell), usual)
        total += 60 * minutes if minutes is not None else cell.settings["iterations"] * step
    return total


def seconds_left(
    wanted: Iterable[PlannedCell], planned: Iterable[PlannedCell], done: Mapping[str, Row]
) -> float | None:
    """Seconds of cells one after the other, by the cells of the study that are done: of the same network and patch,
    else of all. What a cell took holds its start and its evaluation.

    Args:
        wanted: the cells that are to be run.
        planned: all cells of the study.
        done: the rows that there are, by cell.

    Returns:
        None where no cell is done.
    """
    taken: dict[str, list[float]] = {}
    for cell in planned:
        row = done.get(cell.name)
        if row is not None and row.done:
            taken.setdefault(shape_of(cell), []).append(sum(row.seconds.values()))
    if not taken:
        return None
    overall = statistics.fmean(one for each in taken.values() for one in each)
    left = [taken.get(shape_of(cell)) for cell in wanted]
    return sum(statistics.fmean(each) if each else overall for each in left)


def clock_text(seconds: float) -> str:
    """A duration in words.

    >>> clock_text(42), clock_text(600), clock_text(9000), clock_text(400_000)
    ('1 min', '10 min', '2 h 30 min', '4.6 days')
    """
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{seconds / 86400:.1f} days"
