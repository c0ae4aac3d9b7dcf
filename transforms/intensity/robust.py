"""z-score by percentiles, which a few extreme voxels do not move."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection

from rarevox.transforms.intensity.normaliser import Change, Normaliser, change_channels


def robust_z_score(
    image: torch.Tensor,
    inside: torch.Tensor | None = None,
    *,
    lower: float = 5.0,
    upper: float = 95.0,
    clip: float | None = 5.0,
    keep_outside: bool = False,
) -> torch.Tensor:
    """Shift every channel by its median and scale it by the distance of two percentiles, over the voxels inside.

    Formula: clip((x − p50) / s, −clip, clip) with s = (p_upper − p_lower) / (z_upper − z_lower), z being the normal
    distribution's quantiles, so that s is the standard deviation of normally distributed intensities and the result
    there is the z-score. Where s is 0 (more than upper − lower percent of the voxels alike) the channel is only shifted
    and clipped. A channel with no voxel inside is returned as zeros.

    Args:
        image: (C, *spatial), any real dtype.
        inside: bool, (C, *spatial) or (1, *spatial); None means every voxel.
        lower: percentile, 0 < lower < upper.
        upper: percentile, below 100.
        clip: in standard deviations; None does not clip.
        keep_outside: False sets the voxels outside to 0, which is the median of those inside.

    Returns:
        float32 (C, *spatial), of the same class as ``image``.

    Example:
        >>> image = torch.cat([torch.arange(101.0), torch.tensor([1e9])])[None]
        >>> [round(v, 2) for v in robust_z_score(image)[0, [0, 50, 101]].tolist()]
        [-1.83, -0.02, 5.0]
    """
    normal = NormalDist()
    width = normal.inv_cdf(upper / 100) - normal.inv_cdf(lower / 100)

    def fit(values: torch.Tensor, _: int) -> Change:
        low, median, high = np.percentile(values.cpu().numpy(), [lower, 50.0, upper])
        scale = float(high - low) / width or 1.0
        limit = math.inf if clip is None else clip
        return lambda x: x.sub_(float(median)).div_(scale).clamp_(-limit, limit)

    return change_channels(image, inside, fit, keep_outside=keep_outside)


class RobustZScored(Normaliser):
    """z-score images in a data dictionary by percentiles; see :func:`robust_z_score`.

    Args:
        keys: the images.
        region: as in :class:`Normaliser`, with its further options.
        lower: percentile.
        upper: percentile.
        clip: in standard deviations; None does not clip.

    Raises:
        ValueError: not 0 < lower < upper < 100, or a clip that is not positive.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region: str = "image",
        *,
        lower: float = 5.0,
        upper: float = 95.0,
        clip: float | None = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(keys, region, **options)
        if not 0 < lower < upper < 100:
            raise ValueError(f"percentiles are {lower} and {upper}; expected 0 < lower < upper < 100")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip is {clip}; expected a positive number of standard deviations, or null")
        self.lower, self.upper, self.clip = lower, upper, clip

    def normalise(self, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Normalise one image."""
        return robust_z_score(
            image, inside, lower=self.lower, upper=self.upper, clip=self.clip, keep_outside=self.keep_outside
        )
