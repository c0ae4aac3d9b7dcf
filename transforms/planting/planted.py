"""Planting into a batch of patches, lesion after lesion, and what was planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rarevox.transforms.batches.intensity import sent
from rarevox.transforms.labels import is_ignored
from rarevox.transforms.planting.empty import empty_space
from rarevox.transforms.planting.library import LesionLibrary
from rarevox.transforms.planting.patches import Patches, Planned
from rarevox.transforms.planting.plant import plant


class Planted(NamedTuple):
    """What was planted into B patches.

    Attributes:
        totals: (B, 2) int64, lesions and their voxels.
        lesions: (B, most, 1 + classes) int64, a row for each lesion that was tried: the case that it comes from (−2
            less the number of the map for a shape), −1 where none was planted, and its voxels of each class from 1.
    """

    totals: torch.Tensor
    lesions: torch.Tensor


def plant_into(
    image: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor | None,
    planned: Sequence[Sequence[Planned]],
    library: LesionLibrary,
    *,
    most: int,
    foreground: bool | None = None,
    together: bool = False,
) -> Planted:
    """Plant what is planned; patches are changed in place. The host waits for nothing that a device computes.

    Args:
        image: (B, C, *spatial).
        labels: (B, 1, *spatial), class indices.
        mask: (B, 1, *spatial), the anatomy; None: what is not flat.
        planned: for each patch the lesions that are tried; none for one that is not planted.
        library: where they come from.
        most: lesions that may be planned for a patch.
        foreground: only into patches that hold foreground (True) or none (False); None is any.
        together: the first lesion of every patch at once, then the second, and so on, in place of patch by patch: the
            same numbers, in as few operations as one patch takes, on lists as long as the longest.

    Raises:
        ValueError: label maps of several channels, of patches for which something is planned.
    """
    nothing = torch.zeros(len(planned), most, 1 + library.largest_class if library.donors else 1, dtype=torch.int64)
    nothing[..., 0] = -1
    lesions = sent(nothing, image.device)
    rows = [row for row, lesions_of in enumerate(planned) if lesions_of]
    if rows and labels.shape[1] != 1:
        raise ValueError(
            f"the label map has {labels.shape[1]} channels; planting goes with losses of class indices alone: "
            "take another loss, or set planting_share to 0"
        )
    for group in [rows] if together else [[row] for row in rows]:
        if group:
            _plant(image, labels, mask, planned, group, library, lesions, foreground)
    voxels = lesions[..., 1:].sum(-1)
    return Planted(torch.stack([(voxels > 0).sum(1), voxels.sum(1)], 1), lesions)


def _plant(
    image: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor | None,
    planned: Sequence[Sequence[Planned]],
    rows: list[int],
    library: LesionLibrary,
    lesions: torch.Tensor,
    foreground: bool | None,
) -> None:
    """Plant into these rows of a batch at once, and note what was planted in ``lesions``."""
    marks = torch.stack([labels[row, 0] for row in rows])
    volumes = torch.stack([image[row] for row in rows])
    content = ~empty_space(volumes) if mask is None else torch.stack([mask[row, 0] for row in rows]) > 0
    patches = Patches.of(volumes, marks, content)
    held = (patches.labels != 0) & ~is_ignored(patches.labels)
    wanted = None if foreground is None else held.any(1) == foreground
    limits = sent(torch.from_numpy(library.limits), image.device)
    for turn in range(max(len(planned[row]) for row in rows)):
        now = [planned[row][turn] if turn < len(planned[row]) else None for row in rows]
        done = plant(patches, patches.lesions(now), limits, wanted)
        facts = sent(torch.from_numpy(_facts(now, lesions.shape[2])), image.device)
        for place, row in enumerate(rows):
            lesions[row, turn] = torch.where(done[place], facts[place], lesions[row, turn])
    for place, row in enumerate(rows):
        image[row].copy_(patches.inner(patches.image[place]))
        labels[row, 0].copy_(patches.inner(patches.labels[place]))


def _facts(planned: Sequence[Planned | None], length: int) -> np.ndarray:
    """(R, 1 + classes), where lesions come from and their voxels of each class."""
    rows = np.zeros((len(planned), length), np.int64)
    for row, one in zip(rows, planned, strict=True):
        if one is not None:
            row[0] = one.donor.case
            row[1:] = np.bincount(one.donor.classes, minlength=length)[1:]
    return rows
