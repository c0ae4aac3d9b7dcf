"""Where in a patch a lesion can be planted: healthy tissue like that around the donor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from rarevox.transforms.planting.donors import Donor

CANDIDATES = 24
"""Places that are tried for each lesion."""
FARTHEST = 2.0
"""Standard deviations, root mean square over channels, within which a place's tissue is like that around the donor."""
SAMPLED = 256
"""Voxels of a donor at which a place is compared with it."""


class Place(NamedTuple):
    """A place for a donor's box.

    Attributes:
        start: its first voxel in the patch; the rim may reach beyond the patch.
        tissue: (C,), mean intensity of the healthy tissue there.
        spread: (C,), its standard deviation.
    """

    start: tuple[int, ...]
    tissue: torch.Tensor
    spread: torch.Tensor


def empty_space(image: torch.Tensor) -> torch.Tensor:
    """Where a patch (C, *spatial) shows nothing: it has the value that lies in flat blocks, in every channel.

    A block is flat where a voxel equals all its face neighbours, in every channel; tissue never is. Where no voxel is
    flat, nothing is empty.

    >>> empty_space(torch.tensor([[0.0, 0.0, 0.0, 3.0, 0.0, 2.0]])).tolist()
    [True, True, True, False, True, False]
    """
    flat = torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
    for axis in range(image.ndim - 1):
        n = image.shape[axis + 1]
        same = (image.narrow(axis + 1, 1, n - 1) == image.narrow(axis + 1, 0, n - 1)).all(0)
        flat.narrow(axis, 1, n - 1).logical_and_(same)
        flat.narrow(axis, 0, n - 1).logical_and_(same)
    values = image[:, flat]
    if values.shape[1] == 0:
        return flat
    common = values.median(1).values
    return (image == common.view(-1, *(1,) * flat.ndim)).all(0)


def find_place(
    image: torch.Tensor,
    healthy: torch.Tensor,
    donor: Donor,
    tissue: torch.Tensor,
    spread: torch.Tensor,
    margin: tuple[int, ...],
    random: np.random.RandomState,
) -> Place | None:
    """Of some random places at which the whole lesion lies in healthy tissue, the one most like the donor's.

    A place's distance is the root mean square over channels of ((mean − tissue) / spread)² + (deviation / spread)²:
    tissue of the donor's intensity, and of one kind. The lesion lies in the region that the loss sees.

    Args:
        image: (C, *spatial).
        healthy: (*spatial) bool, where a lesion may lie.
        donor: what is to be planted.
        tissue: (C,), the intensity wanted around it.
        spread: (C,), the standard deviation there, above 0.
        margin: voxels from each face that the loss does not see.
        random: draws the places.

    Returns:
        The place; None where none of them will do.
    """
    limits = []
    for n, m, size in zip(healthy.shape, margin, donor.mask.shape, strict=True):
        low, high = m - 2, n - m - size + 2  # a donor's box has two voxels of rim on every side
        if high < low:
            return None
        limits.append((low, high))
    starts = np.stack([random.randint(low, high + 1, CANDIDATES) for low, high in limits], 1)
    inside = _voxels(donor.mask, random)
    places = torch.from_numpy(starts)[:, None, :] + inside[None]  # (candidates, voxels, axes)
    strides = torch.tensor([int(np.prod(healthy.shape[axis + 1 :])) for axis in range(healthy.ndim)])
    flat = (places * strides).sum(2).to(image.device)
    fits = healthy.reshape(-1)[flat].all(1)
    values = image.reshape(image.shape[0], -1)[:, flat]  # (C, candidates, voxels)
    mean, deviation = values.mean(2), values.std(2, correction=0)
    scale = spread[:, None]
    distance = (((mean - tissue[:, None]) / scale) ** 2 + (deviation / scale).clamp(min=1) ** 2 - 1).mean(0).sqrt()
    distance = torch.where(fits, distance, torch.inf)
    for number in distance.argsort().tolist()[:4]:
        if not float(distance[number]) <= FARTHEST:
            return None
        start = tuple(int(s) for s in starts[number])
        if _all_healthy(healthy, donor, start):
            return Place(start, mean[:, number], deviation[:, number])
    return None


def _voxels(mask: torch.Tensor, random: np.random.RandomState) -> torch.Tensor:
    """Some of a mask's voxels, (n, axes)."""
    voxels = mask.nonzero().cpu()
    if len(voxels) <= SAMPLED:
        return voxels
    return voxels[torch.from_numpy(random.choice(len(voxels), SAMPLED, replace=False))]


def overlap(start: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """The part of a box that lies in a volume: as slices of the volume, and of the box.

    >>> overlap((-1,), (4,), (10,))
    ((slice(0, 3, None),), (slice(1, 4, None),))
    """
    there = tuple(slice(max(s, 0), min(s + n, m)) for s, n, m in zip(start, size, shape, strict=True))
    here = tuple(slice(part.start - s, part.stop - s) for part, s in zip(there, start, strict=True))
    return there, here


def _all_healthy(healthy: torch.Tensor, donor: Donor, start: tuple[int, ...]) -> bool:
    """Whether the whole lesion lies in healthy tissue."""
    there, here = overlap(start, tuple(donor.mask.shape), tuple(healthy.shape))
    return bool(healthy[there][donor.mask[here].to(healthy.device)].all())
