"""Spatial augmentation of patches that must go on holding foreground."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from rarevox.transforms.labels import is_ignored


class KeepForegroundd(Randomizable, MapTransform):
    """Apply a random spatial transform to a patch, unless the loss would then see no foreground any more.

    A rotation can turn the one voxel of a rare structure out of the region that the loss sees; such a draw leaves the
    patch as it was. A patch without foreground to begin with is transformed in any case.

    Args:
        keys: the label map (1, *spatial), class indices; component regions may follow. It comes out in the type it went
            in.
        transform: a MONAI dictionary transform of image and label; gets this transform's random state.
        margin: voxels from each face that the loss does not see, one an axis or one for all.

    Raises:
        ValueError: not exactly one key.

    Example:
        >>> from monai.transforms import Lambdad
        >>> gone = KeepForegroundd("label", Lambdad("label", lambda labels: labels * 0))
        >>> int(gone({"label": torch.ones(1, 2, 2)})["label"].sum())
        4
    """

    def __init__(
        self, keys: KeysCollection, transform: Callable[[Any], Any], *, margin: int | Sequence[int] = 0
    ) -> None:
        MapTransform.__init__(self, keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; expected the one label map whose foreground is kept")
        self.transform = transform
        self.margin = margin

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> KeepForegroundd:
        """Seed this transform and the one inside."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(state=self.R)
        return self

    def randomize(self, data: Any = None) -> None:
        """The transform inside draws for itself."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform, and keep the result if foreground is left in it."""
        key = self.keys[0]
        before = data[key]
        changed = dict(self.transform(dict(data)))
        after = changed[key].round().to(before.dtype)
        if self._sees_foreground(before) and not self._sees_foreground(after):
            return dict(data)
        return {**changed, key: after}

    def _sees_foreground(self, labels: torch.Tensor) -> bool:
        labels = labels[:1]  # further channels are regions of components
        dims = labels.ndim - 1
        margins = (self.margin,) * dims if isinstance(self.margin, int) else tuple(self.margin)
        seen = labels[(slice(None), *(slice(m, n - m) for m, n in zip(margins, labels.shape[1:], strict=True)))]
        return bool(((seen != 0) & ~is_ignored(seen)).any())
