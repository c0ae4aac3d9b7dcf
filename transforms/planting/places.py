"""Where in patches lesions can be planted: healthy tissue like that around the donor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from rarevox.transforms.planting.patches import Lesions, voxels_at
from rarevox.transforms.planting.surroundings import LEAST_TISSUE, level_and_spread

FARTHEST = 2.0
"""Standard deviations, root mean square over channels, within which a place's tissue is like that around the donor."""
SCALES = (0.5, 2.0)
"""How much less or more than around the donor the tissue of a place may vary."""
OTHER = 3.0
"""Standard deviations beyond which a voxel is of other tissue."""
FLAT = 1e-6
"""The least spread: of tissue without any noise."""


class Place(NamedTuple):
    """What is known of places for R lesions, K for each.

    Attributes:
        distance: (R, K), how unlike the donor's the tissue is; infinite where the lesion cannot lie.
        tissue, spread: (R, C, K), of the healthy tissue around.
    """

    distance: torch.Tensor
    tissue: torch.Tensor
    spread: torch.Tensor


def measured(tissue: torch.Tensor, lesions: Lesions, starts: torch.Tensor, shell: torch.Tensor) -> Place:
    """Places compared with the surroundings of the donors.

    With t₀ and s₀ the level and spread of the tissue around the donor, t and s those of the place, m the median of the
    voxels that the lesion would cover and q the share of them more than 3 s from t, the distance is

        d² = mean over channels of ((t − t₀) / s₀)² + ((m − t) / s)² + 4 log₂²(s / s₀) + 9 q,

    infinite where a voxel that the lesion would cover is not healthy tissue, fewer than 12 voxels of the shell are, or
    s / s₀ is not 0.5 to 2, which alone is two standard deviations away. Half and double the spread count alike, so that
    s / s₀ is 1 on average over the places that are chosen among like ones; to choose the most even place would make
    every lesion fainter than its donor.

    Args:
        tissue: (R, C, P), healthy tissue, NaN elsewhere.
        lesions: whose voxels and donors' surroundings count.
        starts: (R, K), where the lesions' boxes would begin.
        shell: (R, m), the voxels around that are looked at.
    """
    inside = lesions.classes[:, : lesions.body] > 0
    covered = _values(tissue, voxels_at(torch.where(inside, lesions.at[:, : lesions.body], -1), starts))
    around = _values(tissue, voxels_at(shell, starts))
    level, spread = level_and_spread(around)
    t0, s0 = lesions.tissue[:, :, None], lesions.spread[:, :, None].clamp(min=FLAT)
    s = spread.clamp(min=FLAT)
    scale = (s / s0).log2()
    count = inside.sum(1)[:, None]
    other = ((covered - level[..., None]).abs() > OTHER * s[..., None]).sum(-1) / count.clamp(min=1)[:, None]
    middle = covered.nanmedian(-1).values
    parts = ((level - t0) / s0) ** 2 + ((middle - level) / s) ** 2 + (FARTHEST * scale) ** 2 + OTHER**2 * other
    free = (~covered[:, 0].isnan()).sum(-1) == count
    enough = (~around[:, 0].isnan()).sum(-1) >= LEAST_TISSUE
    low, high = map(math.log2, SCALES)
    fits = (count > 0) & free & enough & ((scale >= low) & (scale <= high)).all(1)
    return Place(torch.where(fits, parts.mean(1).sqrt(), torch.inf), level, spread)


def _values(volumes: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
    """(R, C, K, n), the values of (R, C, P) at the voxels (R, K, n)."""
    rows, channels = volumes.shape[:2]
    wanted = voxels.reshape(rows, 1, -1).expand(rows, channels, -1)
    return volumes.gather(2, wanted).view(rows, channels, *voxels.shape[1:])


def best_place(tissue: torch.Tensor, lesions: Lesions) -> tuple[torch.Tensor, Place]:
    """Of the places of each lesion the one most like the donor's: where its box begins, (R, 1), and what is there.

    Places are compared by some voxels of their shells; level and spread of the one taken are those of all. The host
    waits for nothing.
    """
    found = measured(tissue, lesions, lesions.starts, lesions.sample)
    start = lesions.starts.gather(1, found.distance.argmin(1, keepdim=True))
    return start, measured(tissue, lesions, start, lesions.shell)
