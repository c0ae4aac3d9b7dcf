"""One lesion planted at one place: the arithmetic of it."""

from __future__ import annotations

import torch

from rarevox.transforms.planting.donors import Donor
from rarevox.transforms.planting.places import Place, overlap

SCALES = (0.5, 2.0)
"""How much weaker or stronger than at the donor a lesion may become where tissue varies less or more."""


def plant(
    image: torch.Tensor,
    labels: torch.Tensor,
    donor: Donor,
    place: Place,
    allowed: torch.Tensor,
    limits: torch.Tensor,
) -> None:
    """Plant a lesion in a patch, which is changed in place.

    In each channel x ← x + w (t + k c − x), with w the donor's weight (1 in the lesion, falling over its rim), t the
    tissue's mean at the place, c the donor's intensity less that of the tissue around it, and k the ratio of the
    tissue's standard deviations, place to donor, within 0.5 to 2; t + k c is held within ``limits``. The lesion's
    voxels take the donor's class; its rim does not.

    Args:
        image: (C, *spatial).
        labels: (*spatial) class indices.
        donor: a lesion with intensities.
        place: where its box begins, and the tissue there.
        allowed: (*spatial) bool, where intensities may change.
        limits: (C, 2), lowest and highest intensity.
    """
    assert donor.change is not None and donor.spread is not None
    there, here = overlap(place.start, tuple(donor.mask.shape), tuple(labels.shape))
    column = (slice(None), *(None,) * labels.ndim)
    device = image.device
    scale = (place.spread / donor.spread.to(device).clamp(min=1e-6)).clamp(*SCALES)
    planted = place.tissue[column] + scale[column] * donor.change[(slice(None), *here)].to(device)
    planted = torch.maximum(torch.minimum(planted, limits[:, 1][column]), limits[:, 0][column])
    weight = donor.weight[here].to(device) * allowed[there]
    part = image[(slice(None), *there)]
    part.lerp_(planted.to(part.dtype), weight.expand_as(part).to(part.dtype))
    labels[there][donor.mask[here].to(device)] = donor.label
