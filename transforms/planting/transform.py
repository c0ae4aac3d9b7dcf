"""Planting as a random transform of training patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from rarevox.transforms.planting.library import LesionLibrary
from rarevox.transforms.planting.patches import CANDIDATES, Planned
from rarevox.transforms.planting.planted import Planted, plant_into

INTO = ("any", "background", "foreground")


class RandPlantLesionsd(RandomizableTransform, MapTransform):
    """Transplant lesions of a library into the healthy tissue of a patch; labels follow voxel by voxel.

    Each lesion is mirrored at random and set where the tissue is like that around the donor: of 64 random places at
    which the whole lesion lies in healthy tissue (anatomy, no foreground, and none beside it) the one whose tissue is
    nearest in level and spread, if it is within two standard deviations
    (:func:`rarevox.transforms.planting.places.measured`). Its contrast to the tissue around comes along in every
    channel, scaled by how much the tissue varies here and there, and passes into the tissue over two voxels
    (:func:`rarevox.transforms.planting.plant.plant`). What fits nowhere is not planted.

    The anatomy is where the patch's mask says (:class:`rarevox.transforms.AnatomyMaskd` gives every case one); of a
    patch without a mask, what is not flat (:func:`rarevox.transforms.planting.empty.empty_space`).

    Adds ``planted``, an int64 tensor of two numbers, lesions planted and their voxels; and ``planted_lesions``, int64
    (most, 1 + classes), a row for each: the number of the case that it comes from, −2 less the number of the map for a
    shape, −1 where there is no lesion, and its voxels of each class from 1. The mask is taken out.

    Args:
        keys: the image (C, *spatial).
        label_key: class indices (1, *spatial).
        mask_key: the anatomy (1, *spatial), where it is given.
        library: the lesions.
        prob: of a patch to be planted.
        count: least and largest number of lesions that are tried.
        margin: voxels from each face that the loss does not see, one an axis or one for all; lesions lie within.
        into: which patches: ``any``, those without foreground (``background``) or those with (``foreground``). A patch
            that says what it was drawn for (``drawn_for``: ``background`` or ``foreground``, as a run's draws do) is
            taken at its word, others are looked at. One that was drawn again because a network marked something where
            there is nothing (``hard``) is never planted into.
        mirror: spatial axes along which donors are mirrored.

    Raises:
        ValueError: an option is wrong; label maps of several channels (regions of components), which would not follow.

    Sources: Zhang et al., "CarveMix: a simple data augmentation method for brain lesion segmentation", MICCAI 2021 (a
    lesion with its surroundings carved out of one scan into another); Salem et al., "Multiple sclerosis lesion
    synthesis in MRI using an encoder-decoder U-NET", IEEE Access 2019, and Basaran et al., "Subject-specific lesion
    generation and pseudo-healthy synthesis for multiple sclerosis brain images", SASHIMI 2022 (lesions in healthy
    tissue as training data). Here nothing is learnt: contrasts are measured.
    """

    def __init__(
        self,
        keys: KeysCollection,
        library: LesionLibrary,
        *,
        label_key: str = "label",
        mask_key: str = "mask",
        prob: float = 0.5,
        count: Sequence[int] = (1, 3),
        margin: int | Sequence[int] = 0,
        into: str = "any",
        mirror: Sequence[int] = (0, 1, 2),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; expected the one image")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob is {prob}; expected 0 to 1")
        if len(count) != 2 or not 1 <= count[0] <= count[1]:
            raise ValueError(f"count is {list(count)}; expected the least and the largest number of lesions, 1 or more")
        if into not in INTO:
            raise ValueError(f"into is {into!r}; expected one of {', '.join(INTO)}")
        self.library = library
        self.label_key = label_key
        self.mask_key = mask_key
        self.count = (int(count[0]), int(count[1]))
        self.margin = margin
        self.into = into
        self.mirror = tuple(mirror)
        if prob > 0:  # now, and not in each of the loader's processes
            _ = library.donors, library.shapes, library.limits

    def randomize(self, data: Any = None) -> None:
        """Whether this patch is planted."""
        super().randomize(None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Plant; image and labels that are changed are copies."""
        out = dict(data)
        self.randomize()
        drawn_for = out.get("drawn_for")
        image, labels = (torch.as_tensor(out[key]) for key in (self.keys[0], self.label_key))
        mask = out.pop(self.mask_key, None)
        planned: list[Planned] = []
        if self._do_transform and self.takes(drawn_for):
            planned = self.plan(image.shape[1:], self.R)
        if planned:
            image, labels = image.clone(), labels.clone()
            out[self.keys[0]], out[self.label_key] = image, labels
        masks = None if mask is None else torch.as_tensor(mask)[None]
        found = self.planted(image[None], labels[None], masks, [planned], looks=drawn_for is None)
        return out | {"planted": found.totals[0], "planted_lesions": found.lesions[0]}

    def planted(
        self,
        image: torch.Tensor,
        labels: torch.Tensor,
        mask: torch.Tensor | None,
        planned: Sequence[Sequence[Planned]],
        *,
        looks: bool,
        together: bool = False,
    ) -> Planted:
        """Plant into a batch, in place; with ``looks``, only into patches that hold what ``into`` says. The rest as
        :func:`rarevox.transforms.planting.planted.plant_into` takes it."""
        foreground = self.into == "foreground" if looks and self.into != "any" else None
        options: dict[str, Any] = {"most": self.count[1], "foreground": foreground, "together": together}
        return plant_into(image, labels, mask, planned, self.library, **options)

    def takes(self, drawn_for: str | None) -> bool:
        """Whether patches drawn for that may be planted into."""
        return drawn_for != "hard" and (drawn_for is None or self.into in ("any", drawn_for))

    def plan(self, shape: Sequence[int], random: np.random.RandomState) -> list[Planned]:
        """Lesions that are tried in a patch of this shape, and the places for each."""
        planned = []
        margin = (self.margin,) * len(shape) if isinstance(self.margin, int) else tuple(self.margin)
        for _ in range(random.randint(self.count[0], self.count[1] + 1) if self.library.donors else 0):
            donor = self.library.draw(random)
            donor = donor.flipped([axis for axis in self.mirror if random.random_sample() < 0.5])
            highest = [n - 2 * m - size for n, m, size in zip(shape, margin, donor.size, strict=True)]
            if min(highest) >= 0:
                starts = [m + random.randint(0, most + 1, CANDIDATES) for m, most in zip(margin, highest, strict=True)]
                planned.append(Planned(donor, np.stack(starts, 1)))
        return planned
