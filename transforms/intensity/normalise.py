"""z-score over the whole image, its non-zero voxels or a mask."""

from __future__ import annotations

import math

import torch

from rarevox.transforms.intensity.normaliser import Change, Normaliser, change_channels


def z_score(image: torch.Tensor, inside: torch.Tensor | None = None, *, keep_outside: bool = False) -> torch.Tensor:
    """Shift and scale every channel to mean 0 and standard deviation 1 over the voxels inside.

    Formula: (x − mean(x[inside])) / std(x[inside]), the standard deviation with n in the denominator; where it is 0
    (constant channel, one voxel) the channel is only shifted. A channel with no voxel inside is returned as zeros.

    Args:
        image: (C, *spatial), any real dtype; computed in float32 from float64 sums.
        inside: bool, (C, *spatial) or (1, *spatial); None means every voxel.
        keep_outside: False sets the voxels outside to 0, which is the mean of those inside; True transforms them too.

    Returns:
        float32 (C, *spatial), of the same class as ``image`` (a MetaTensor keeps its affine).

    Example:
        >>> z_score(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]])).tolist()
        [[-1.0, 1.0, 0.0]]
    """

    def fit(values: torch.Tensor, _: int) -> Change:
        mean = values.mean(dtype=torch.float64)
        std = float((values - mean).square().mean(dtype=torch.float64).sqrt())
        if not math.isfinite(std):  # the square of 1e20 is none in float32
            std = float((values.double() - mean).square_().mean().sqrt())
        return shift_and_scale(float(mean), std)

    return change_channels(image, inside, fit, keep_outside=keep_outside)


def shift_and_scale(centre: float, scale: float) -> Change:
    """(x − centre) / scale in place; a scale of 0 only shifts."""
    return lambda values: values.sub_(centre).div_(scale or 1.0)


class ZScored(Normaliser):
    """z-score images in a data dictionary by :func:`z_score`; the options are those of :class:`Normaliser`."""

    def normalise(self, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Normalise one image."""
        return z_score(image, inside, keep_outside=self.keep_outside)
