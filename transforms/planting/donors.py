"""Lesions as they are taken from a scan: their shape, their rim, and how they differ from the tissue around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms.sampling.foreground_index import ForegroundIndex

RIM_WEIGHTS = (2 / 3, 1 / 3)
"""What is taken of a donor one and two voxels outside its lesion, where intensities pass into the tissue."""
RIM = len(RIM_WEIGHTS)
SHELL = 4
"""Voxels around a lesion whose tissue is measured."""
LEAST_TISSUE = 12
"""Healthy voxels around a lesion without which nothing can be said of its contrast."""
LEAST_CONTRAST = 1.0
"""Lesions that differ from the tissue around by fewer of its standard deviations, in every channel, are no donors."""
MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution by its median absolute deviation."""


@dataclass(frozen=True, eq=False)
class Donor:
    """One lesion, in a box two voxels larger than itself on every side.

    Attributes:
        label: its class.
        voxels: how many it has.
        mask: (*spatial) bool, the lesion.
        weight: (*spatial), 1 in the lesion, falling to 0 over its rim; 0 where the rim is other anatomy.
        change: (C, *spatial), the intensity less that of the tissue around; None for a shape without a scan.
        tissue: (C,), the median intensity of the healthy tissue around; None likewise.
        spread: (C,), the standard deviation there; None likewise.
        case: the number of the case it comes from.
    """

    label: int
    voxels: int
    mask: torch.Tensor
    weight: torch.Tensor
    change: torch.Tensor | None = None
    tissue: torch.Tensor | None = None
    spread: torch.Tensor | None = None
    case: int = -1

    def flipped(self, axes: tuple[int, ...]) -> Donor:
        """The same lesion mirrored along spatial axes."""
        if not axes:
            return self
        from_first = [axis + 1 for axis in axes]
        change = None if self.change is None else self.change.flip(from_first)
        return replace(self, mask=self.mask.flip(axes), weight=self.weight.flip(axes), change=change)


def donors_of(
    image: torch.Tensor,
    labels: torch.Tensor,
    content: np.ndarray,
    *,
    sizes: tuple[int, int],
    extent: tuple[int, ...],
    case: int = -1,
) -> Iterator[Donor]:
    """The lesions of a case that can be transplanted: connected components of each class, joined by faces and corners.

    Args:
        image: (C, *spatial).
        labels: (*spatial) class indices, 0 is background.
        content: (*spatial), where the scan shows something.
        sizes: least and largest number of voxels.
        extent: largest size along each axis, voxels.
        case: noted in the donors.
    """
    marks = labels.cpu().numpy()
    index = ForegroundIndex.of_components(marks)
    for label, voxels in zip(index.classes, index.voxels, strict=True):
        if not sizes[0] <= len(voxels) <= sizes[1]:
            continue
        places = np.unravel_index(voxels, marks.shape)
        low, high = [int(p.min()) for p in places], [int(p.max()) + 1 for p in places]
        if any(b - a > most for a, b, most in zip(low, high, extent, strict=True)):
            continue
        donor = _donor(image, marks, content, label, voxels, low, high, case)
        if donor is not None:
            yield donor


def shape_donor(mask: np.ndarray, label: int, case: int = -1) -> Donor:
    """A donor of a lesion's shape alone, (*spatial) bool.

    >>> shape_donor(np.ones((1, 1, 1), bool), 1).weight.amax(dim=(1, 2)).tolist()
    [0.3333333432674408, 0.6666666865348816, 1.0, 0.6666666865348816, 0.3333333432674408]
    """
    padded = np.pad(mask, RIM)
    return Donor(
        label,
        int(mask.sum()),
        torch.from_numpy(padded),
        torch.from_numpy(_rim(padded, np.ones_like(padded))),
        case=case,
    )


def _donor(
    image: torch.Tensor,
    marks: np.ndarray,
    content: np.ndarray,
    label: int,
    voxels: np.ndarray,
    low: list[int],
    high: list[int],
    case: int,
) -> Donor | None:
    """The donor of one component; None where there is too little healthy tissue around it, or too little contrast."""
    begin = [max(a - SHELL, 0) for a in low]
    around = tuple(slice(a, b + SHELL) for a, b in zip(begin, high, strict=True))
    foreground, inside = marks[around] != 0, content[around]
    mask = np.zeros(foreground.shape, bool)
    mask[tuple(p - a for p, a in zip(np.unravel_index(voxels, marks.shape), begin, strict=True))] = True
    values = image[(slice(None), *around)].float().cpu().numpy()
    full = np.ones((3,) * mask.ndim, bool)
    healthy = inside & ~ndimage.binary_dilation(foreground, full)
    healthy &= ndimage.binary_dilation(mask, full, iterations=SHELL)
    if healthy.sum() < LEAST_TISSUE:
        return None
    tissue = np.median(values[:, healthy], axis=1)
    column = (slice(None), *(None,) * mask.ndim)
    change = values - tissue[column]
    spread = MAD_TO_STD * np.median(np.abs(change[:, healthy]), axis=1)
    contrast = np.abs(change[:, mask].mean(1))
    if not (contrast >= LEAST_CONTRAST * spread).any() or not contrast.any():
        return None
    # The rim belongs to the lesion where it lies between tissue and lesion; beyond that it is other anatomy.
    low_change = np.minimum(np.percentile(change[:, mask], 5, axis=1), 0) - spread
    high_change = np.maximum(np.percentile(change[:, mask], 95, axis=1), 0) + spread
    between = ((change >= low_change[column]) & (change <= high_change[column])).all(0)
    weight = _rim(mask, inside & between & ~foreground)
    box = tuple(slice(a - b - RIM, c - b + RIM) for a, b, c in zip(low, begin, high, strict=True))
    return Donor(
        label,
        len(voxels),
        torch.from_numpy(_boxed(mask, box)),
        torch.from_numpy(_boxed(weight, box)),
        torch.from_numpy(_boxed(change, box)),
        torch.from_numpy(tissue.astype(np.float32)),
        torch.from_numpy(spread.astype(np.float32)),
        case,
    )


def _rim(mask: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """1 in the mask, the rim's weights around it where it is allowed."""
    weight = mask.astype(np.float32)
    full, grown = np.ones((3,) * mask.ndim, bool), mask
    for value in RIM_WEIGHTS:
        before, grown = grown, ndimage.binary_dilation(grown, full)
        weight[grown & ~before & allowed] = value
    return weight


def _boxed(array: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """The box of (…, *spatial), zeros where it leaves the array."""
    sizes = array.shape[array.ndim - len(box) :]
    kept = tuple(slice(max(part.start, 0), part.stop) for part in box)
    padding = [(max(-part.start, 0), max(part.stop - n, 0)) for part, n in zip(box, sizes, strict=True)]
    ahead = array.ndim - len(box)
    return np.ascontiguousarray(np.pad(array[(slice(None),) * ahead + kept], [(0, 0)] * ahead + padding))
