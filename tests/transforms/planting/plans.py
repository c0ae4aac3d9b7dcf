"""Donors by hand, and places for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from rarevox.transforms.planting.donors import Donor, shape_donor
from rarevox.transforms.planting.patches import CANDIDATES, Patches, Planned

CUBOID = np.ones((3, 2, 2), bool)


def donor(
    change: float | np.ndarray = 6.0, *, tissue: float = 0.0, spread: float = 1.0, mask: np.ndarray = CUBOID
) -> Donor:
    """A lesion of class 3 in one channel, that differs by so much from the tissue, its rim by nothing."""
    shape = shape_donor(mask, 3)
    values = np.where(shape.classes > 0, change, 0)[None].astype(np.float32)
    one = np.float32([tissue]), np.float32([spread])
    return replace(shape, change=values, tissue=one[0], spread=one[1])


def planned(one: Donor, shape: tuple[int, ...], seed: int = 0) -> Planned:
    """With random places all over a patch."""
    random = np.random.default_rng(seed)
    starts = [random.integers(0, n - size + 1, CANDIDATES) for n, size in zip(shape, one.size, strict=True)]
    return Planned(one, np.stack(starts, 1))


def at(one: Donor, *start: int) -> Planned:
    """With one place."""
    return Planned(one, np.tile(np.array(start), (CANDIDATES, 1)))


def patch(image: torch.Tensor, labels: torch.Tensor | None = None, content: torch.Tensor | None = None) -> Patches:
    """One patch, (*spatial), in one channel."""
    labels = torch.zeros(image.shape, dtype=torch.uint8) if labels is None else labels
    content = torch.ones(image.shape, dtype=torch.bool) if content is None else content
    return Patches.of(image[None, None], labels[None], content[None])
