"""Patches that are planted into and lesions for them, laid out so that a batch is planted into at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from rarevox.transforms.batches.intensity import sent
from rarevox.transforms.planting.donors import Donor
from rarevox.transforms.planting.surroundings import SHELL, evenly

CANDIDATES = 64
"""Places that are tried for each lesion; among 24, tissue as even as deep white matter is often missing."""
SAMPLED = 256
"""Voxels of a shell by which places are compared; of the one that is taken, the whole shell counts."""


class Planned(NamedTuple):
    """A donor, and where its box may begin in a patch: (64, axes)."""

    donor: Donor
    starts: np.ndarray


class Lesions(NamedTuple):
    """One lesion for each of R patches, as lists filled up to the longest; −1 in ``at`` and ``shell`` is no voxel.

    Voxels are numbered in the patch with its border, from where the lesion's box begins.

    Attributes:
        body: how many voxels the largest lesion has.
        at: (R, n), the lesion's voxels and then its rim's.
        classes: (R, n), 0 on the rim.
        weight: (R, n).
        change: (R, C, n), the donor's intensity less that of the tissue around it.
        shell, sample: (R, m), the voxels around, and some of them.
        tissue, spread: (R, C), of the tissue around the donor.
        starts: (R, K), the voxels at which the box may begin.
    """

    body: int
    at: torch.Tensor
    classes: torch.Tensor
    weight: torch.Tensor
    change: torch.Tensor
    shell: torch.Tensor
    sample: torch.Tensor
    tissue: torch.Tensor
    spread: torch.Tensor
    starts: torch.Tensor


@dataclass
class Patches:
    """Patches with a border of four voxels in which nothing is, so that what reaches beyond them needs no care.

    Attributes:
        image: (R, C, P), P voxels with the border.
        labels: (R, P), class indices.
        content: (R, P) bool, where the scan shows something.
        shape: of a patch with its border.
    """

    image: torch.Tensor
    labels: torch.Tensor
    content: torch.Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, image: torch.Tensor, labels: torch.Tensor, content: torch.Tensor) -> Patches:
        """Copies of (R, C, *spatial), (R, *spatial) and (R, *spatial) bool."""
        border = (SHELL,) * (2 * (image.ndim - 2))
        exact = image if image.dtype == torch.float64 else image.float()
        image, labels, content = (F.pad(one, border) for one in (exact, labels, content))
        return cls(image.flatten(2), labels.flatten(1), content.flatten(1), tuple(labels.shape[1:]))

    def inner(self, flat: torch.Tensor) -> torch.Tensor:
        """(…, P) without the border, (…, *spatial)."""
        whole = flat.unflatten(-1, self.shape)
        for axis in range(-len(self.shape), 0):
            whole = whole.narrow(axis, SHELL, whole.shape[axis] - 2 * SHELL)
        return whole

    def tissue(self) -> torch.Tensor:
        """(R, C, P), the intensities of the healthy tissue, NaN elsewhere: nothing labelled, nor beside it."""
        known = grown((self.labels != 0).unflatten(1, self.shape))
        healthy = self.content & ~known.flatten(1)
        return torch.where(healthy[:, None], self.image, torch.nan)

    def lesions(self, planned: Sequence[Planned | None]) -> Lesions:
        """What is planned for each patch as lists on the patches' device; None for a patch is no lesion."""
        strides = np.array([int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape))])
        # Voxels before a box's first one would have negative numbers: all are counted from the border's corner.
        corner = int(SHELL * strides.sum())
        donors = [None if one is None else one.donor for one in planned]
        some = [np.zeros((0, len(strides)), int) if donor is None else self._reached(donor) for donor in donors]
        channels, rows = self.image.shape[1], len(donors)
        starts = np.zeros((rows, CANDIDATES), np.int64)
        tissue, spread = np.zeros((2, rows, channels), np.float32)
        for row, one in enumerate(planned):
            if one is not None:
                starts[row] = one.starts @ strides
                tissue[row], spread[row] = one.donor.tissue, one.donor.spread
        lists = (
            _filled([None if donor is None else donor.at @ strides + corner for donor in donors], -1, np.int64),
            _filled([None if donor is None else donor.classes for donor in donors], 0, np.int64),
            _filled([None if donor is None else donor.weight for donor in donors], 0, np.float32),
            _filled([None if donor is None else donor.change for donor in donors], 0, np.float32, (channels,)),
            _filled([shell @ strides + corner for shell in some], -1, np.int64),
            _filled([evenly(shell, SAMPLED) @ strides + corner for shell in some], -1, np.int64),
            tissue,
            spread,
            starts,
        )
        device = self.image.device
        body = max((donor.voxels for donor in donors if donor is not None), default=0)
        return Lesions(max(body, 1), *(sent(torch.from_numpy(part), device) for part in lists))

    def _reached(self, donor: Donor) -> np.ndarray:
        """The voxels of a donor's shell that lie in the patch wherever its box does, or can: all but in flat patches.

        A patch of one slice holds none of the others. Those would be most of the few by which places are compared.
        """
        inner = np.array(self.shape) - 2 * SHELL
        return donor.shell[((donor.shell >= np.array(donor.size) - inner) & (donor.shell < inner)).all(1)]


def _filled(lists: Sequence[np.ndarray | None], empty: int, kind: type, ahead: tuple[int, ...] = ()) -> np.ndarray:
    """Lists (*ahead, n) of several lengths as one array, filled up at their ends; at least one long."""
    longest = max((one.shape[-1] for one in lists if one is not None), default=0)
    out = np.full((len(lists), *ahead, max(longest, 1)), empty, kind)
    for row, one in enumerate(lists):
        if one is not None:
            out[row, ..., : one.shape[-1]] = one
    return out


def grown(masks: torch.Tensor) -> torch.Tensor:
    """Masks (R, *spatial) and all voxels beside them, by face, edge or corner.

    >>> grown(torch.tensor([[False, False, True, False, False]])).tolist()
    [[False, True, True, True, False]]
    """
    for axis in range(1, masks.ndim):
        n = masks.shape[axis]
        wider = masks.clone()
        wider.narrow(axis, 1, n - 1).logical_or_(masks.narrow(axis, 0, n - 1))
        wider.narrow(axis, 0, n - 1).logical_or_(masks.narrow(axis, 1, n - 1))
        masks = wider
    return masks


def voxels_at(places: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The voxels (R, K, n) of lists (R, n) from each of the starts (R, K); 0, in the border, for what is none."""
    return torch.where(places[:, None] < 0, 0, places[:, None] + starts[:, :, None])
