"""What a normalisation made of a channel: refused where it is no number, told where it says nothing."""

from __future__ import annotations

import torch

EXTREME = 30.0
"""Sound intensities lie within so many standard deviations; only beyond is it asked what few voxels do to the rest."""

FEW = 1e-3
"""The share of voxels, at least one, that may be extreme."""

ALIKE = 1e-3
"""The rest is alike where leaving out the few extreme voxels leaves less than this share of the standard deviation."""


class NormalisationError(ValueError):
    """An image cannot be normalised; the message names the channel and the fault."""


NOT_FINITE = (
    "export the scan anew, or set them to a number of your choice (numpy.nan_to_num); of training cases, prepare --fix "
    "sets a surround of NaN to 0"
)
"""What to do about voxels that are no numbers."""


def require_finite(values: torch.Tensor, channel: int) -> None:
    """Refuse NaN and infinite voxels where a normalisation is fitted: its numbers would be none.

    Args:
        values: of the voxels that count, any real dtype and shape.
        channel: of the image, counted from 0.

    Raises:
        NormalisationError: with how many there are.

    >>> require_finite(torch.tensor([1.0, torch.nan]), 0)
    Traceback (most recent call last):
    ...
    rarevox.transforms.intensity.outcome.NormalisationError: channel 1 of the scan holds NaN or infinite voxels (1 of \
2); export the scan anew, or set them to a number of your choice (numpy.nan_to_num); of training cases, prepare --fix \
sets a surround of NaN to 0
    """
    if not values.is_floating_point() or bool(torch.isfinite(values.sum(dtype=torch.float64))):
        return  # finite float32 values cannot overflow a sum in float64
    bad = int(values.numel() - torch.isfinite(values).sum())
    if bad:
        raise NormalisationError(
            f"channel {channel + 1} of the scan holds NaN or infinite voxels ({bad} of {values.numel()}); {NOT_FINITE}"
        )


def said_of(normalised: torch.Tensor, channel: int) -> str:
    """A sentence about a channel that is normalised and says nothing; empty where it does.

    Args:
        normalised: finite values of one channel.
        channel: of the image, counted from 0.

    >>> said_of(torch.zeros(2, 2), 1)
    'channel 2 is the same everywhere after normalisation: it carries nothing'
    >>> said_of(torch.tensor([0.0, 1.0, 2.0]), 0)
    ''
    """
    low, high = (float(value) for value in torch.aminmax(normalised))
    if low == high:
        return f"channel {channel + 1} is the same everywhere after normalisation: it carries nothing"
    count = outweighing(normalised) if max(-low, high) > EXTREME else 0
    if not count:
        return ""
    return (
        f"channel {channel + 1}: {count} voxel(s) of extreme intensity outweigh all others, which normalisation makes "
        "alike"
    )


def outweighing(values: torch.Tensor) -> int:
    """How many voxels of extreme intensity make up nearly all of a channel's variance; 0 where none do.

    Args:
        values: finite, of one channel, (X, …); in any units.

    >>> outweighing(torch.cat([torch.arange(2000.0), torch.tensor([1e30])])), outweighing(torch.arange(2000.0))
    (1, 0)
    """
    mean = values.mean(dtype=torch.float64)
    squares = sum(float((plane.double() - mean).square().sum()) for plane in values)  # 1e30² is none in float32
    spread = (squares / values.numel()) ** 0.5
    size = (values.reshape(-1) - mean).abs()
    few = max(1, int(FEW * values.numel()))
    if float(size.max()) <= EXTREME * spread or few >= size.numel():
        return 0
    rest = values.reshape(-1)[size <= torch.topk(size, few + 1).values[-1]]
    if float(rest.double().std(correction=0)) >= ALIKE * spread:
        return 0
    return int((size > size.max() / 2).sum())
