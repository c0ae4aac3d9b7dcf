"""z-score by the white matter, found as a peak of the histogram: no segmentation of it is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from scipy.ndimage import gaussian_filter1d

from rarevox.transforms.intensity.normalise import shift_and_scale
from rarevox.transforms.intensity.normaliser import Change, Normaliser, change_channels

PEAKS = ("largest", "last")
BINS = 200
SMOOTHING_BINS = 4.0
RARE = 0.2


def histogram_peak(values: np.ndarray, which: str = "largest") -> tuple[float, float]:
    """Place and width of a peak of the histogram of intensities.

    200 bins between the percentiles 0.5 and 99.5 (bins of whole numbers where the intensities are), smoothed by a
    Gaussian of 4 bins. Peaks lower than a fifth of the highest are noise. The width is the standard deviation of the
    normal distribution that has the peak's half width at half height, on the side where that is smaller (the other one
    leans on a neighbouring tissue), less what the smoothing added.

    Args:
        values: intensities, at least one, any shape.
        which: ``largest`` (the highest peak) or ``last`` (the brightest one).

    Returns:
        peak and standard deviation in units of intensity; median and 0 where the percentiles are alike.

    Example:
        >>> random = np.random.default_rng(0)
        >>> grey, white = random.normal(60, 8, 60_000), random.normal(100, 5, 40_000)
        >>> peak, width = histogram_peak(np.concatenate([grey, white]), "last")
        >>> abs(peak - 100) < 1, abs(width - 5) < 0.5
        (True, True)
    """
    values = np.asarray(values, np.float64).ravel()
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    if high <= low:
        return float(median), 0.0
    bin_width = (high - low) / BINS
    if np.array_equal(values, np.rint(values)):
        low, bin_width = math.floor(low) - 0.5, float(math.ceil(bin_width))
    edges = low + bin_width * np.arange(math.ceil((high - low) / bin_width) + 1)
    heights = gaussian_filter1d(np.histogram(values, edges)[0].astype(np.float64), SMOOTHING_BINS, mode="constant")
    place = _chosen_peak(heights, which)
    nearer = min(_to_half_height(heights[place:]), _to_half_height(heights[place::-1]))
    variance = (nearer / math.sqrt(2 * math.log(2))) ** 2 - SMOOTHING_BINS**2
    return float(low + bin_width * (place + 0.5)), float(bin_width * math.sqrt(max(variance, 0.25)))


def _chosen_peak(heights: np.ndarray, which: str) -> int:
    """The bin of the largest or the last local maximum of some height."""
    if which == "largest":
        return int(np.argmax(heights))
    padded = np.concatenate([[-1.0], heights, [-1.0]])
    peaks = (heights >= padded[:-2]) & (heights > padded[2:]) & (heights >= RARE * heights.max())
    return int(np.flatnonzero(peaks)[-1])


def _to_half_height(heights: np.ndarray) -> float:
    """Bins from the first one, a peak, to where half its height is passed; infinite where it never is."""
    below = np.flatnonzero(heights < heights[0] / 2)
    if below.size == 0:
        return math.inf
    after = int(below[0])
    return after - float((heights[0] / 2 - heights[after]) / (heights[after - 1] - heights[after]))


def white_matter_z_score(
    image: torch.Tensor,
    inside: torch.Tensor | None = None,
    *,
    peaks: Sequence[str] = ("largest",),
    keep_outside: bool = False,
) -> torch.Tensor:
    """Shift every channel by its white-matter peak and scale it by that peak's width.

    Formula: (x − peak) / width of :func:`histogram_peak`, so that white matter has mean 0 and standard deviation 1.
    A channel whose intensities are alike is only shifted; one with no voxel inside is returned as zeros.

    Args:
        image: (C, *spatial), any real dtype.
        inside: bool, (C, *spatial) or (1, *spatial): the brain; None means every voxel.
        peaks: which peak is the white matter's, one a channel or one for all.
        keep_outside: False sets the voxels outside to 0, which is the white matter's intensity.

    Returns:
        float32 (C, *spatial), of the same class as ``image``.
    """

    def fit(values: torch.Tensor, channel: int) -> Change:
        return shift_and_scale(*histogram_peak(values.cpu().numpy(), peaks[min(channel, len(peaks) - 1)]))

    return change_channels(image, inside, fit, keep_outside=keep_outside)


class WhiteMatterZScored(Normaliser):
    """z-score brain MRI in a data dictionary by the white matter's intensities, as in the GDL paper.

    The paper does not say how it found the white matter; here it is a peak of the histogram, as in WhiteStripe. White
    matter is the brightest tissue of T1-weighted images (``last``) and the most frequent intensity of FLAIR and T2
    (``largest``). Images should be skull-stripped, or normalised inside a brain mask.

    Args:
        keys: the images.
        region: as in :class:`Normaliser`, with its further options.
        peaks: ``largest`` or ``last``, or a list with one of them for each channel.

    Raises:
        ValueError: an unknown peak, or a list whose length is not the number of channels.

    Source: Sudre et al. 2017 (z-scores by the white matter); Shinohara et al. 2014, NeuroImage: Clinical 6 (the peak,
    and the fifth under which a peak is noise).
    """

    def __init__(
        self,
        keys: KeysCollection,
        region: str = "nonzero",
        *,
        peaks: str | Sequence[str] = "largest",
        **options: Any,
    ) -> None:
        super().__init__(keys, region, **options)
        self.peaks = (peaks,) if isinstance(peaks, str) else tuple(peaks)
        if not self.peaks or set(self.peaks) - set(PEAKS):
            raise ValueError(f"peaks is {peaks!r}; expected {' or '.join(PEAKS)}, or a list of them, one a channel")

    def normalise(self, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Normalise one image."""
        if len(self.peaks) not in (1, image.shape[0]):
            raise ValueError(f"peaks names {len(self.peaks)} channels, the image has {image.shape[0]}; give one each")
        return white_matter_z_score(image, inside, peaks=self.peaks, keep_outside=self.keep_outside)
