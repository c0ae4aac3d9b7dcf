"""Lesions planted into patches: the arithmetic of it, one lesion for each patch at once."""

from __future__ import annotations

import torch

from rarevox.transforms.planting.patches import Lesions, Patches, voxels_at
from rarevox.transforms.planting.places import FARTHEST, FLAT, Place, best_place


def plant(patches: Patches, lesions: Lesions, limits: torch.Tensor, wanted: torch.Tensor | None = None) -> torch.Tensor:
    """Plant a lesion in each patch where it finds a place; the patches are changed. Nothing is waited for.

    In each channel x ← x + w (t + k c − x), with w the donor's weight (1 in the lesion, falling over its rim), t the
    median of the healthy tissue in the lesion's shell at the place, c the donor's intensity less that of the tissue in
    its shell there, and k = s / s₀ the ratio of the two tissues' standard deviations, both by the same estimator on
    the same shell (:mod:`rarevox.transforms.planting.surroundings`). So the planted lesion's contrast to its tissue,
    in standard deviations of that tissue, is the donor's to its own: (x − t) / s = c / s₀; in tissue like the donor's
    it is as strong as it was, whatever its size. Shells of n voxels give k to √2 · 1.17 / √n of itself. t + k c is held
    within ``limits``. The lesion's voxels take the donor's classes; its rim does not.

    Args:
        patches: what is planted into.
        lesions: one for each, with the places that are tried.
        limits: (C, 2), lowest and highest intensity.
        wanted: (R,) bool, the patches that may be planted into; None is all.

    Returns:
        (R,) bool, where a lesion was planted.
    """
    start, place = best_place(patches.tissue(), lesions)
    done = place.distance[:, 0] <= FARTHEST
    if wanted is not None:
        done = done & wanted
    _write(patches, lesions, start, place, limits, done)
    return done


def _write(
    patches: Patches, lesions: Lesions, start: torch.Tensor, place: Place, limits: torch.Tensor, done: torch.Tensor
) -> None:
    """Write the lesions at their places, (R, 1), where ``done``."""
    there = voxels_at(lesions.at, start)[:, 0]
    old = patches.labels.gather(1, there)
    allowed = patches.content.gather(1, there) & (old == 0) & done[:, None]
    # Both clamped, as where places are compared: from one tissue without texture to another the contrast stays.
    scale = place.spread.clamp(min=FLAT) / lesions.spread[:, :, None].clamp(min=FLAT)
    # A lesion without a place has no tissue there (NaN), of which nothing may come into the patch.
    value = torch.where(done[:, None, None], place.tissue + scale * lesions.change, 0)
    value = torch.maximum(torch.minimum(value, limits[:, 1:]), limits[:, :1])
    where = there[:, None].expand_as(value)
    now = patches.image.gather(2, where)
    weight = torch.where(allowed, lesions.weight, 0)[:, None].to(now.dtype)
    # What is no voxel is written to the border, always the same number.
    patches.image.scatter_(2, where, torch.lerp(now, value.to(now.dtype), weight.expand_as(now)))
    classes = torch.where(allowed & (lesions.classes > 0), lesions.classes.to(old.dtype), old)
    patches.labels.scatter_(1, there, classes)
