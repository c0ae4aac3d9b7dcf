"""CT windows: Hounsfield units clipped to a range of interest and scaled to 0 … 1."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.intensity.normaliser import plain
from rarevox.transforms.intensity.outcome import require_finite, said_of
from rarevox.transforms.told import tell

WINDOWS = {
    "brain": (0.0, 80.0),
    "stroke": (20.0, 60.0),
    "subdural": (-50.0, 150.0),
    "soft_tissue": (-160.0, 240.0),
    "liver": (-45.0, 105.0),
    "mediastinum": (-125.0, 225.0),
    "lung": (-1350.0, 150.0),
    "bone": (-450.0, 1050.0),
}
"""Lower and upper bound in Hounsfield units of the usual display windows (level ∓ half the width)."""

Window = str | Sequence[float]


def bounds(window: Window) -> tuple[float, float]:
    """Lower and upper bound of a window that is named or given as a pair, in Hounsfield units.

    >>> bounds("brain"), bounds([-100, 300])
    ((0.0, 80.0), (-100.0, 300.0))

    Raises:
        ValueError: an unknown name, or no pair of numbers with lower < upper.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ValueError(f"no CT window is called {window!r}; there are {', '.join(WINDOWS)}, or [lower, upper]")
        return WINDOWS[window]
    pair = tuple(float(value) for value in window)
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(f"CT window {list(window)} must be [lower, upper] in Hounsfield units, lower < upper")
    return pair[0], pair[1]


def ct_windows(image: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
    """Every channel through every window: clip(x, lower, upper) → (x − lower) / (upper − lower).

    Args:
        image: (C, *spatial), Hounsfield units.
        windows: names of :data:`WINDOWS` or pairs.

    Returns:
        float32 (len(windows)·C, *spatial), the channels of the first window first, of the same class as ``image``; a
        channel that the window leaves nothing of is told in the metadata, as by a normalisation.

    Raises:
        NormalisationError: NaN or infinite voxels.

    Example:
        >>> ct_windows(torch.tensor([[-1000.0, 40.0, 80.0, 1500.0]]), ["brain", (0, 160)]).tolist()
        [[0.0, 0.5, 1.0, 1.0], [0.0, 0.25, 0.5, 1.0]]
    """
    for channel, values in enumerate(plain(image)):
        require_finite(values, channel)
    seen = [image.float().clamp(low, high).sub_(low).div_(high - low) for low, high in map(bounds, windows)]
    out = torch.cat(seen) if len(seen) > 1 else seen[0]
    flat = [said_of(values, channel) for channel, values in enumerate(plain(out))]
    tell(out, [f"{sentence} (is it in Hounsfield units?)" for sentence in flat if sentence])
    return out


class CTWindowd(MapTransform):
    """CT images in a data dictionary through one or more windows; see :func:`ct_windows`.

    The result lies in 0 … 1, air and whatever else is below the window being 0, like the padding of patches at the
    border. With several windows each becomes a channel, and the configuration's ``in_channels`` must say so.

    Args:
        keys: the images, each (C, *spatial), in Hounsfield units.
        windows: one window or a list: names of :data:`WINDOWS` or pairs [lower, upper].

    Raises:
        ValueError: an unknown name, or a pair that is none.
    """

    def __init__(
        self, keys: KeysCollection, windows: Window | Sequence[Window] = "soft_tissue", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        single = isinstance(windows, str) or (len(windows) > 0 and all(isinstance(w, (int, float)) for w in windows))
        self.windows = [bounds(w) for w in ([windows] if single else windows)]  # type: ignore[arg-type, list-item]
        if not self.windows:
            raise ValueError("windows is empty; give a CT window or a list of them")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by its windows."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = ct_windows(out[key], self.windows)
        return out
