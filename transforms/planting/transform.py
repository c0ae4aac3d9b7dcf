"""Planting as a random transform of training patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from rarevox.transforms.planting.library import LesionLibrary
from rarevox.transforms.planting.places import empty_space, find_place
from rarevox.transforms.planting.plant import plant

INTO = ("any", "background", "foreground")


class RandPlantLesionsd(RandomizableTransform, MapTransform):
    """Transplant lesions of a library into the healthy tissue of a patch; labels follow voxel by voxel.

    Each lesion is mirrored at random and set where the tissue is like that around the donor: of 24 random places at
    which the whole lesion lies in healthy tissue (content, no foreground, and none beside it) the one whose mean and
    deviation are nearest, if they are within two standard deviations
    (:func:`rarevox.transforms.planting.places.find_place`). Its contrast to the tissue around comes along in every
    channel, scaled by how much the tissue varies here and there, and passes into the tissue over two voxels
    (:func:`rarevox.transforms.planting.plant.plant`). What fits nowhere is not planted.

    Adds ``planted``, an int64 tensor of two numbers: lesions planted, and their voxels.

    Args:
        keys: the image (C, *spatial).
        label_key: class indices (1, *spatial).
        library: the lesions.
        prob: of a patch to be planted.
        count: least and largest number of lesions that are tried.
        margin: voxels from each face that the loss does not see, one an axis or one for all; lesions lie within.
        into: which patches: ``any``, those without foreground (``background``) or those with (``foreground``).
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
        planted = (0, 0)
        if self._do_transform and self.library.donors:
            image, labels = torch.as_tensor(out[self.keys[0]]), torch.as_tensor(out[self.label_key])
            if labels.shape[0] != 1:
                raise ValueError(
                    f"the label map has {labels.shape[0]} channels; planting goes with losses of class indices alone: "
                    "take another loss, or set planting_share to 0"
                )
            known = labels[0] != 0
            if self.into == "any" or bool(known.any()) == (self.into == "foreground"):
                image, labels = image.clone(), labels.clone()
                planted = self._plant(image, labels[0], known)
                out[self.keys[0]], out[self.label_key] = image, labels
        out["planted"] = torch.tensor(planted)
        return out

    def _plant(self, image: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> tuple[int, int]:
        """Plant some lesions in place; ``known`` marks what is labelled. Returns lesions and voxels."""
        random: np.random.RandomState = self.R
        margin = (self.margin,) * labels.ndim if isinstance(self.margin, int) else tuple(self.margin)
        content = ~empty_space(image)
        limits = self.library.limits.to(image.device)
        lesions = voxels = 0
        for _ in range(random.randint(self.count[0], self.count[1] + 1)):
            donor = self.library.draw(random)
            donor = donor.flipped(tuple(axis for axis in self.mirror if random.random_sample() < 0.5))
            assert donor.tissue is not None and donor.spread is not None
            tissue, spread = donor.tissue.to(image.device), donor.spread.to(image.device).clamp(min=1e-6)
            place = find_place(image, content & ~grown(known), donor, tissue, spread, margin, random)
            if place is None:
                continue
            plant(image, labels, donor, place, content & ~known, limits)
            known = labels != 0
            lesions, voxels = lesions + 1, voxels + donor.voxels
        return lesions, voxels


def grown(mask: torch.Tensor) -> torch.Tensor:
    """A mask (*spatial) and all voxels beside it, by face, edge or corner.

    >>> grown(torch.tensor([False, False, True, False, False])).tolist()
    [False, True, True, True, False]
    """
    for axis in range(mask.ndim):
        n = mask.shape[axis]
        wider = mask.clone()
        wider.narrow(axis, 1, n - 1).logical_or_(mask.narrow(axis, 0, n - 1))
        wider.narrow(axis, 0, n - 1).logical_or_(mask.narrow(axis, 1, n - 1))
        mask = wider
    return mask
