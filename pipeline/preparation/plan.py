"""The training patch, fitted to the volumes of a dataset, and the batch, fitted to the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rarevox.losses.distributed import apart
from rarevox.networks import Geometry
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.device import Precision, channels_last, place_network
from rarevox.pipeline.files import read_json
from rarevox.pipeline.preparation.fingerprint import along_ras
from rarevox.transforms.slices import slice_order


def median_size(dataset: Dataset, spacing: Sequence[float] | None, slice_axis: str | None = None) -> list[int] | None:
    """Median size of the dataset's volumes along R, A, S in voxels of the training grid; None where it is not known.

    With ``slice_axis`` (see :func:`rarevox.transforms.slices.slice_order`) the axis across the slices is last.
    """
    path = dataset.path.parent / "fingerprint.json"
    if not path.is_file():
        return None
    cases = read_json(path).get("per_case", [])
    if not cases:
        return None
    sizes = []
    for along in map(_along_ras, cases):
        grid = [own for _, own in along] if spacing is None else [float(t) for t in spacing]
        size = [n * own / t for (n, own), t in zip(along, grid, strict=True)]
        order = (0, 1, 2) if slice_axis is None else slice_order(grid, slice_axis)
        sizes.append([size[axis] for axis in order])
    return [max(round(size), 1) for size in np.median(sizes, axis=0)]


def slice_orders(dataset: Dataset, spacing: Sequence[float] | None, slice_axis: str) -> set[tuple[int, int, int]]:
    """In which orders the axes R, A, S of the dataset's volumes come with ``slice_axis``; see `median_size`."""
    path = dataset.path.parent / "fingerprint.json"
    cases = read_json(path).get("per_case", []) if path.is_file() and spacing is None else []
    grids = [[own for _, own in _along_ras(case)] for case in cases] or [list(spacing or (1.0, 1.0, 1.0))]
    return {slice_order([float(t) for t in grid], slice_axis) for grid in grids}


def _along_ras(case: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(voxels, spacing in mm) along the right, anterior and superior axis of a case's fingerprint row."""
    size, spacing = (along_ras(case["orientation"], case[key]) for key in ("size", "spacing_mm"))
    return list(zip(size, spacing, strict=True))


def plan_patch(
    dataset: Dataset,
    patch_size: Sequence[int],
    geometry: Geometry,
    loss_margin: int | Sequence[int],
    spacing: Sequence[float] | None,
    slice_axis: str | None = None,
) -> list[int]:
    """The patch to train on: the overlay's, reshaped to the volumes at about the same number of voxels.

    A patch is never larger than the median volume, rounded up to a size that the network takes (to the nearest one that
    runs fastest, where the network keeps the size): what lies outside would be padding. For such networks, voxels
    saved on short axes go to the long ones, so small crops such as 36×50×35 are trained on nearly whole. Valid
    convolutions keep the overlay's extent on the other axes. An
    axis along which the network sees no neighbours (across slices) never grows.
    """
    size = median_size(dataset, spacing, slice_axis)
    patch = [int(n) for n in patch_size]
    if size is None or len(size) != len(patch):
        return patch
    lost = [2 * m for m in geometry.unseen(loss_margin)]
    largest = _whole_volume(geometry, [n + extra for n, extra in zip(size, lost, strict=True)])
    fitted = [min(n, limit) for n, limit in zip(patch, largest, strict=True)]
    if any(lost):
        return fitted
    step = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    budget = math.prod(patch)
    while True:
        room = [a for a in range(len(fitted)) if fitted[a] + step[a] <= largest[a] and geometry.receptive_field[a] > 1]
        room = [a for a in room if math.prod(fitted) // fitted[a] * (fitted[a] + step[a]) <= 1.05 * budget]
        if not room:
            return fitted
        axis = min(room, key=lambda a: fitted[a] / largest[a])
        fitted[axis] += step[axis]


def _whole_volume(geometry: Geometry, size: Sequence[int]) -> list[int]:
    """The patch that takes a volume as a whole, or nearly so where that runs faster.

    >>> _whole_volume(Geometry(receptive_field=(87, 87, 87), preferred_multiple=16), [35, 50, 9])
    [32, 48, 9]
    """
    if any(geometry.margin):
        return list(geometry.preferred_size(size))
    least = geometry.input_size(size)
    steps = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    return [max(round(n / step), 1) * step if n >= step else n for n, step in zip(least, steps, strict=True)]


ENOUGH_STEPS = 600
"""Fewer optimiser steps than this leave a network far from trained, whatever the batch."""


def fit_batch(batch_size: int, seconds_per_patch: float, budget_seconds: float) -> int:
    """The largest of batch_size, batch_size / 2, …, 1 with which ``ENOUGH_STEPS`` steps fit into the budget.

    >>> fit_batch(4, 0.1, 720), fit_batch(4, 0.5, 720), fit_batch(4, 2.2, 720)
    (4, 2, 1)
    """
    while batch_size > 1 and budget_seconds / (batch_size * seconds_per_patch) < ENOUGH_STEPS:
        batch_size //= 2
    return batch_size


def shrink_patch(patch_size: Sequence[int], geometry: Geometry, share: float) -> list[int]:
    """A patch of about ``share`` of the voxels, in proportion, at sizes that run fast, no axis under 24 voxels.

    For networks that keep the size; valid convolutions would spend more of a smaller patch on their margin.

    >>> shrink_patch([36, 48, 36], Geometry(receptive_field=(87, 87, 87), preferred_multiple=4), 0.5)
    [28, 36, 28]
    """
    if share >= 1 or any(geometry.margin):
        return list(patch_size)
    step = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    factor = share ** (1 / len(patch_size))
    return [min(n, max(int(n * factor) // s * s, math.ceil(24 / s) * s)) for n, s in zip(patch_size, step, strict=True)]


def seconds_per_patch(
    network: torch.nn.Module,
    loss: Any,
    patch_size: Sequence[int],
    in_channels: int,
    out_channels: int,
    precision: Precision,
) -> float:
    """Wall time of one forward and backward pass over one patch of noise, the fastest of two to eight.

    The first one may compile kernels, and others may be held up by what else the machine does; short ones are repeated
    for a second. The network is unchanged: running statistics of normalisation layers are put back, gradients are
    dropped. Of several processes, the one that asks takes the time alone.
    """
    device = precision.device
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network = place_network(network, device).train()
    image = torch.randn(2, in_channels, *patch_size, device=device)
    image = image.contiguous(memory_format=channels_last(len(patch_size)))
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 8 and sum(taken[1:]) < 1):
        began = time.perf_counter()
        with precision.autocast():
            logits = network(image)
        labels = torch.randint(0, out_channels, (2, 1, *logits.shape[2:]), device=device, dtype=torch.uint8)
        if getattr(loss, "needs_regions", False):  # one component of each class
            labels = torch.cat([labels, *[torch.ones_like(labels)] * (out_channels - 1)], dim=1)
        with apart():
            loss(logits, labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append((time.perf_counter() - began) / 2)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(state)
    return min(taken)
