"""Lesions as they are taken from a scan: their shape, their rim, and how they differ from the tissue around them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms.planting.surroundings import LEAST_TISSUE, SHELL, level_and_spread, shell_of
from rarevox.transforms.sampling.foreground_index import ForegroundIndex

RIM_WEIGHTS = (2 / 3, 1 / 3)
"""What is taken of a donor one and two voxels outside its lesion, where intensities pass into the tissue."""
RIM = len(RIM_WEIGHTS)
LEAST_CONTRAST = 1.0
"""Lesions that differ from the tissue around by fewer of its standard deviations, in every channel, are no donors."""


@dataclass(frozen=True, eq=False)
class Donor:
    """One lesion: its voxels and those of its rim, one after the other.

    Attributes:
        size: of the lesion's box, voxels along each axis.
        at: (n, axes), the voxels, counted from the box's first one; those of the rim may lie outside the box.
        classes: (n,), the class of each; 0 on the rim.
        weight: (n,), 1 in the lesion, falling to 0 over its rim; what has none is left out, such as other anatomy.
        shell: (m, axes), the voxels whose tissue is measured, counted likewise
            (:func:`rarevox.transforms.planting.surroundings.shell_of`).
        change: (C, n), the intensity less the level of the tissue around; None for a shape without a scan.
        tissue: (C,), the level of the healthy tissue around; None likewise.
        spread: (C,), its standard deviation; None likewise.
        case: the number of the case it comes from; of a shape −2 less the number of its map.
    """

    size: tuple[int, ...]
    at: np.ndarray
    classes: np.ndarray
    weight: np.ndarray
    shell: np.ndarray
    change: np.ndarray | None = None
    tissue: np.ndarray | None = None
    spread: np.ndarray | None = None
    case: int = -1

    @property
    def voxels(self) -> int:
        """How many the lesion has."""
        return int(np.count_nonzero(self.classes))

    @property
    def held(self) -> set[int]:
        """The classes of its voxels."""
        return set(np.unique(self.classes[self.classes > 0]).tolist())

    def flipped(self, axes: Collection[int]) -> Donor:
        """The same lesion mirrored along spatial axes, those that it has."""
        own = set(axes) & set(range(len(self.size)))
        if not own:
            return self
        at, shell = self.at.copy(), self.shell.copy()
        for axis in own:
            for places in (at, shell):
                places[:, axis] = self.size[axis] - 1 - places[:, axis]
        return replace(self, at=at, shell=shell)


def donors_of(
    image: torch.Tensor,
    labels: torch.Tensor,
    content: np.ndarray,
    *,
    sizes: tuple[int, int],
    extent: tuple[int, ...],
    classes: Collection[int] | None = None,
    unknown: np.ndarray | None = None,
    case: int = -1,
) -> Iterator[Donor]:
    """The lesions of a case that can be transplanted: connected components, joined by faces and corners, of all classes
    together that are planted, so that a core comes with the oedema around it.

    Args:
        image: (C, *spatial).
        labels: (*spatial) class indices, 0 is background.
        content: (*spatial), where the scan shows something.
        sizes: least and largest number of voxels.
        extent: largest size along each axis, voxels.
        classes: that are planted; None is all.
        unknown: (*spatial), voxels that nobody annotated, which are no healthy tissue; a lesion that touches them may
            go on there, and is no donor.
        case: noted in the donors.
    """
    marks = labels.cpu().numpy()
    known = np.ones(marks.shape, bool) if unknown is None else ~unknown
    planted = marks != 0 if classes is None else np.isin(marks, list(classes))
    for voxels in ForegroundIndex.of_components(planted.astype(np.uint8)).voxels:
        if not sizes[0] <= len(voxels) <= sizes[1]:
            continue
        places = np.stack(np.unravel_index(voxels, marks.shape), 1)
        low, high = places.min(0), places.max(0) + 1
        if (high - low > extent).any():
            continue
        donor = _donor(image, marks, content, known, places, low, high, case)
        if donor is not None:
            yield donor


def shape_donor(mask: np.ndarray, label: int, case: int = -1) -> Donor:
    """A donor of a lesion's shape alone, (*spatial) bool, in a box as small as it can be.

    >>> donor = shape_donor(np.ones((1, 1, 1), bool), 1)
    >>> donor.voxels, [int((donor.weight == np.float32(w)).sum()) for w in (1, 2 / 3, 1 / 3)]
    (1, [1, 26, 98])
    """
    padded = np.pad(mask, RIM)
    weight = _rim(padded, np.ones_like(padded))
    at = _voxels(weight)
    heavy = weight[tuple(at.T)]
    return Donor(tuple(mask.shape), at - RIM, np.where(heavy == 1, label, 0), heavy, shell_of(mask), case=case)


def _donor(
    image: torch.Tensor,
    marks: np.ndarray,
    content: np.ndarray,
    known: np.ndarray,
    places: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    case: int,
) -> Donor | None:
    """The donor of one component; None where there is too little healthy tissue around it, or too little contrast, or
    where it touches what is not known."""
    begin = np.maximum(low - SHELL, 0)
    around = tuple(slice(a, b + SHELL) for a, b in zip(begin, high, strict=True))
    foreground, inside = marks[around] != 0, content[around] & known[around]
    mask = np.zeros(foreground.shape, bool)
    mask[tuple((places - begin).T)] = True
    full = np.ones((3,) * mask.ndim, bool)
    if not known[around].all() and (ndimage.binary_dilation(mask, full) & ~known[around]).any():
        return None
    values = image[(slice(None), *around)].float().cpu().numpy()
    healthy = inside & ~ndimage.binary_dilation(foreground, full)
    shell = shell_of(mask[tuple(slice(a, b) for a, b in zip(low - begin, high - begin, strict=True))])
    there = shell + (low - begin)
    there = there[((there >= 0) & (there < mask.shape)).all(1)]
    there = there[healthy[tuple(there.T)]]
    if len(there) < LEAST_TISSUE:
        return None
    measured = level_and_spread(torch.from_numpy(values[(slice(None), *there.T)]))
    tissue, spread = (figure.numpy() for figure in measured)
    column = (slice(None), *(None,) * mask.ndim)
    change = values - tissue[column]
    if not _stands_out(change, np.where(mask, marks[around], 0), spread):
        return None
    # The rim belongs to the lesion where it lies between tissue and lesion; beyond that it is other anatomy.
    low_change = np.minimum(np.percentile(change[:, mask], 5, axis=1), 0) - spread
    high_change = np.maximum(np.percentile(change[:, mask], 95, axis=1), 0) + spread
    between = ((change >= low_change[column]) & (change <= high_change[column])).all(0)
    weight = _rim(mask, inside & between & ~foreground)
    at = _voxels(weight)
    taken = tuple(at.T)
    return Donor(
        tuple(int(n) for n in high - low),
        at - (low - begin),
        np.where(mask[taken], marks[around][taken], 0),
        weight[taken],
        shell,
        change[(slice(None), *taken)],
        tissue,
        spread,
        case,
    )


def _stands_out(change: np.ndarray, classes: np.ndarray, spread: np.ndarray) -> bool:
    """Whether one of the classes in a lesion differs from the tissue around in some channel."""
    for label in np.unique(classes[classes > 0]):
        contrast = np.abs(change[:, classes == label].mean(1))
        if ((contrast >= LEAST_CONTRAST * spread) & (contrast > 0)).any():
            return True
    return False


def _rim(mask: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """1 in the mask, the rim's weights around it where it is allowed."""
    weight = mask.astype(np.float32)
    full, grown = np.ones((3,) * mask.ndim, bool), mask
    for value in RIM_WEIGHTS:
        before, grown = grown, ndimage.binary_dilation(grown, full)
        weight[grown & ~before & allowed] = value
    return weight


def _voxels(weight: np.ndarray) -> np.ndarray:
    """The voxels (n, axes) with a weight, the heaviest first."""
    return np.argwhere(weight > 0)[np.argsort(-weight[weight > 0], kind="stable")]
