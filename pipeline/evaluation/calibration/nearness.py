"""Which voxels lie near a structure, kept as a cropped mask a structure, so that small ones take little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rarevox.transforms.bounding_box import bounding_box


@dataclass(frozen=True)
class Near:
    """A mask that is False outside a box.

    Attributes:
        start: the first voxel of the box.
        mask: within the box; None where it is False everywhere.
    """

    start: tuple[int, ...]
    mask: np.ndarray | None

    @property
    def count(self) -> int:
        """How many voxels are near."""
        return 0 if self.mask is None else int(np.count_nonzero(self.mask))

    def block(self, where: tuple[slice, ...]) -> np.ndarray | None:
        """The mask of a block of the volume; None where it is False all over."""
        if self.mask is None:
            return None
        inner, outer = [], []
        for span, first, size in zip(where, self.start, self.mask.shape, strict=True):
            low, high = max(span.start, first), min(span.stop, first + size)
            if high <= low:
                return None
            inner.append(slice(low - span.start, high - span.start))
            outer.append(slice(low - first, high - first))
        out = np.zeros([span.stop - span.start for span in where], bool)
        out[tuple(inner)] = self.mask[tuple(outer)]
        return out


def near_boxes(
    labels: np.ndarray,
    structures: Sequence[Sequence[int]],
    spacing_mm: Sequence[float],
    distance_mm: float,
    ignored: int | None = None,
) -> list[Near]:
    """For each structure the voxels at most ``distance_mm`` along each axis from one of its voxels.

    Args:
        labels: (X, Y, Z).
        structures: label values of each, a union where there are several.
        spacing_mm: voxel edge lengths.
        distance_mm: between voxel centres, along each axis.
        ignored: voxels of this label are near nothing.
    """
    # No further than the volume: of voxels of a micrometre 20 mm are more than memory holds.
    radii = [min(int(distance_mm / float(mm) + 1e-6), n) for mm, n in zip(spacing_mm, labels.shape, strict=True)]
    found = []
    for values in structures:
        mask = np.isin(labels, values) if len(values) > 1 else labels == values[0]
        box = bounding_box(mask)
        if box is None:
            found.append(Near((0,) * labels.ndim, None))
            continue
        grown = dilate(mask[box], radii)
        low = [max(0, span.start - r) for span, r in zip(box, radii, strict=True)]
        cut = tuple(
            slice(first - (span.start - r), min(n, span.stop + r) - (span.start - r))
            for first, span, r, n in zip(low, box, radii, labels.shape, strict=True)
        )
        near = grown[cut].copy()
        if ignored is not None:
            here = tuple(slice(first, first + n) for first, n in zip(low, near.shape, strict=True))
            near &= labels[here] != ignored
        found.append(Near(tuple(low), near))
    return found


def dilate(mask: np.ndarray, radii: Sequence[int]) -> np.ndarray:
    """Every voxel within ``radii`` of a set one, axis by axis; the result is larger by a radius on each side.

    Windows are doubled, so an axis costs log2 of its window: 0.1 s for 240×240×155 voxels and 10 voxels.

    >>> dilate(np.array([True, False, False, True]), [1]).astype(int).tolist()
    [1, 1, 1, 1, 1, 1]
    >>> dilate(np.array([True]), [2]).astype(int).tolist()
    [1, 1, 1, 1, 1]
    """
    for axis, radius in enumerate(radii):
        window, width = 1, 2 * radius + 1
        pad = [(0, 0)] * mask.ndim
        pad[axis] = (2 * radius, 2 * radius)
        mask = np.moveaxis(np.pad(mask, pad), axis, 0)
        while window < width:  # mask[i] says whether any of the next `window` voxels is set
            step = min(window, width - window)
            mask[:-step] |= mask[step:].copy()
            window += step
        mask = np.moveaxis(mask[: len(mask) - 2 * radius], 0, axis)
    return mask
