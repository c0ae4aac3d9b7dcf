"""Nyúl's standardisation: histogram landmarks learnt on the training cases, every image mapped onto them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection

from rarevox.transforms.intensity.normaliser import Change, Normaliser, change_channels, plain

PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)


def learn_landmarks(
    images: Iterable[tuple[torch.Tensor, torch.Tensor | None]], percentiles: Sequence[float] = PERCENTILES
) -> list[list[float]]:
    """The standard landmarks of each channel, the mean of the images' own ones on a common scale.

    Each image's percentiles l are mapped linearly so that the first is 0 and the last 1 and averaged over the images.
    The average a is then shifted and scaled so that its median is 0 and a normal distribution's percentiles 10 and 90
    are where they belong, (a − a50) · (z90 − z10) / (a90 − a10): a standardised image is in the same units as a
    z-score. Only the landmarks of an image are kept.

    Args:
        images: (C, *spatial) each, with the mask of its voxels that count, (C or 1, *spatial) or None for all.
        percentiles: ascending, within 0 … 100.

    Returns:
        For each channel as many numbers as percentiles, ascending, rounded to 6 decimals.

    Raises:
        ValueError: there is no image, the images differ in their channels, or some channel is constant in all.
    """
    normal = NormalDist()
    rows: list[list[np.ndarray]] = []
    for image, inside in images:
        rows = rows or [[] for _ in range(image.shape[0])]
        if image.shape[0] != len(rows):
            raise ValueError(f"images to learn from have {len(rows)} and {image.shape[0]} channels; expected the same")
        for channel, row in enumerate(rows):
            own = _own_landmarks(plain(image), inside, channel, percentiles)
            if own is not None and own[-1] > own[0]:
                row.append((own - own[0]) / (own[-1] - own[0]))
    if not rows or not all(rows):
        empty = [number for number, row in enumerate(rows) if not row]
        what = f"channel {empty[0]} is constant or empty in every image" if empty else "there is no image"
        raise ValueError(f"landmarks cannot be learnt: {what}")
    learnt = []
    for row in rows:
        mean = np.mean(row, axis=0)
        low, median, high = np.interp([10, 50, 90], percentiles, mean)
        scale = (normal.inv_cdf(0.9) - normal.inv_cdf(0.1)) / (high - low) if high > low else 1.0
        learnt.append([round(float(value), 6) for value in (mean - median) * scale])
    return learnt


def _own_landmarks(
    image: torch.Tensor, inside: torch.Tensor | None, channel: int, percentiles: Sequence[float]
) -> np.ndarray | None:
    """Percentiles of one channel's voxels inside; None where there are none."""
    values = image[channel] if inside is None else image[channel][inside[min(channel, inside.shape[0] - 1)]]
    return np.percentile(values.cpu().numpy(), percentiles) if values.numel() else None


def onto_landmarks(own: np.ndarray, standard: np.ndarray) -> Change:
    """Piecewise linear from an image's landmarks to the standard ones, the end pieces continued beyond them.

    Landmarks of the image that coincide count once, at the mean of their standard values; where all do, the channel is
    only shifted.

    >>> change = onto_landmarks(np.array([0.0, 10.0, 30.0]), np.array([-1.0, 0.0, 1.0]))
    >>> change(torch.tensor([-10.0, 5.0, 20.0, 50.0])).tolist()
    [-2.0, -0.5, 0.5, 2.0]
    """
    places, which = np.unique(own, return_inverse=True)
    targets = np.bincount(which, weights=standard) / np.bincount(which)
    if places.size == 1:
        return lambda values: values.sub_(float(places[0]))
    slopes = torch.from_numpy(np.diff(targets) / np.diff(places)).float()
    inner, starts = torch.from_numpy(places[1:-1]).float(), torch.from_numpy(places[:-1]).float()
    offsets = torch.from_numpy(targets[:-1]).float()

    def change(values: torch.Tensor) -> torch.Tensor:
        piece = torch.bucketize(values, inner.to(values.device), out_int32=True)
        begin, slope, offset = (table.to(values.device)[piece] for table in (starts, slopes, offsets))
        return values.sub_(begin).mul_(slope).add_(offset)

    return change


class NyulNormalised(Normaliser):
    """Map images in a data dictionary onto standard landmarks, piecewise linearly; see :func:`onto_landmarks`.

    ``rarevox train`` learns the landmarks on the run's training cases where they are null and writes them into the
    run's configurations, so that prediction needs nothing else. Voxels outside the region become 0, the median.

    Args:
        keys: the images.
        region: as in :class:`Normaliser`, with its further options.
        landmarks: for each channel a number for each percentile, ascending; null until they are learnt.
        percentiles: of the landmarks.

    Raises:
        ValueError: percentiles or landmarks that do not ascend or do not fit each other; when used, landmarks that were
            never learnt or are for another number of channels.

    Source: Nyúl and Udupa 1999, Magnetic Resonance in Medicine 42; Nyúl et al. 2000, IEEE TMI 19.
    """

    learns = "landmarks"
    """The argument that training fills in by :meth:`learn`."""

    def __init__(
        self,
        keys: KeysCollection,
        region: str = "nonzero",
        *,
        landmarks: Sequence[Sequence[float]] | None = None,
        percentiles: Sequence[float] = PERCENTILES,
        **options: Any,
    ) -> None:
        super().__init__(keys, region, **options)
        self.percentiles = tuple(float(p) for p in percentiles)
        steps = np.diff([0.0, *self.percentiles, 100.0])
        if len(self.percentiles) < 2 or (steps[1:-1] <= 0).any() or (steps[[0, -1]] < 0).any():
            raise ValueError(f"percentiles are {list(percentiles)}; expected two or more, ascending, within 0 … 100")
        self.landmarks = None if landmarks is None else [np.asarray(row, np.float64) for row in landmarks]
        for row in self.landmarks or []:
            if row.shape != (len(self.percentiles),) or (np.diff(row) < 0).any():
                raise ValueError(f"landmarks {row.tolist()} must be {len(self.percentiles)} ascending numbers")

    def learn(self, images: Iterable[tuple[torch.Tensor, torch.Tensor | None]]) -> list[list[float]]:
        """The landmarks of these images; see :func:`learn_landmarks`."""
        return learn_landmarks(images, self.percentiles)

    def normalise(self, image: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
        """Normalise one image."""
        if self.landmarks is None:
            raise ValueError("landmarks are not learnt yet; `rarevox train` learns them and writes them into the run")
        standard = self.landmarks
        if len(standard) != image.shape[0]:
            raise ValueError(f"landmarks are for {len(standard)} channels, the image has {image.shape[0]}")

        def fit(values: torch.Tensor, channel: int) -> Change:
            return onto_landmarks(np.percentile(values.cpu().numpy(), self.percentiles), standard[channel])

        return change_channels(image, inside, fit, keep_outside=self.keep_outside)
