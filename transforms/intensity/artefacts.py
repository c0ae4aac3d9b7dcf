"""Artefacts of motion in MRI as random transforms of patches: the head moves once in a while, or with every beat."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type

from rarevox.transforms.intensity.k_space import ghosted, moved, put_together

_JITTER = 0.3
"""Of the time between two movements, by which each may come earlier or later; TorchIO's."""


class _RandLinesd(RandomizableTransform, MapTransform):
    """What the two have in common: images, channels that were recorded one by one, the axis of the lines."""

    def __init__(
        self, keys: KeysCollection, prob: float, axes: Sequence[int], channel_wise: bool, allow_missing_keys: bool
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not axes or any(axis not in (0, 1, 2) for axis in axes):
            raise ValueError(f"axes are {list(axes)}; expected some of the spatial axes 0, 1 and 2")
        self.axes, self.channel_wise = tuple(axes), channel_wise

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The artefact, drawn anew for each key; images that are changed are copies."""
        out = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return out
        for key in self.key_iterator(out):
            image = out[key]
            plain = image.as_tensor() if hasattr(image, "as_tensor") else torch.as_tensor(image)
            if self.channel_wise:
                changed = torch.cat([self._changed(channel[None]) for channel in plain])
            else:
                changed = self._changed(plain)
            out[key] = convert_to_dst_type(changed, image)[0]
        return out

    def _axis(self, image: torch.Tensor) -> int:
        """Draw the axis of the lines, among those that the image has; as a dimension of (C, *spatial)."""
        there = [axis for axis in self.axes if axis < image.ndim - 1]
        return 1 + int(self.R.choice(there or [0]))

    @abstractmethod
    def _changed(self, image: torch.Tensor) -> torch.Tensor:
        """The image with the artefact, drawn now."""


class RandMotiond(_RandLinesd):
    """The head moves while a scan is recorded: parts of k-space are those of a rigidly moved image.

    At one to three moments the head comes into another pose, drawn uniformly; the lines of k-space, recorded from the
    lowest frequency to the highest along one axis, are of the pose of their moment. The part with frequency 0 is of the
    pose at rest, so that the labels still fit. The real part of the image is taken.

    A patch is moved about its own centre, and what comes in at its faces goes on as at the faces.

    Args:
        keys: images (C, *spatial) of 2 or 3 axes.
        prob: of a patch.
        degrees: largest angle in each plane, of the voxel grid.
        translation: largest shift along each axis, in voxels.
        movements: least and largest number of moments.
        axes: spatial axes along which phases may be encoded; one is drawn.
        channel_wise: draw anew for each channel, as scans of several contrasts are recorded one after the other.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: an option is wrong.

    Sources: Shaw et al., "MRI k-space motion artefact augmentation", MIDL 2019; TorchIO's ``RandomMotion``
    (Pérez-García et al., Computer Methods and Programs in Biomedicine 2021), which transforms along all axes, to the
    same end, encodes along the last one alone, and moves about the centre of whole scans.

    Example:
        >>> patch = {"image": torch.rand(2, 12, 12, 12)}
        >>> out = RandMotiond("image", prob=1.0).set_random_state(0)(patch)
        >>> out["image"].shape, bool((out["image"] != patch["image"]).any())
        (torch.Size([2, 12, 12, 12]), True)
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.1,
        degrees: float = 5.0,
        translation: float = 2.0,
        movements: Sequence[int] = (1, 3),
        axes: Sequence[int] = (0, 1, 2),
        channel_wise: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, axes, channel_wise, allow_missing_keys)
        if degrees < 0 or translation < 0:
            raise ValueError(f"degrees is {degrees}, translation {translation}; expected 0 or more")
        if len(movements) != 2 or not 1 <= movements[0] <= movements[1]:
            raise ValueError(f"movements are {list(movements)}; expected the least and the largest number, 1 or more")
        self.degrees, self.translation, self.movements = degrees, translation, (int(movements[0]), int(movements[1]))

    def _changed(self, image: torch.Tensor) -> torch.Tensor:
        axis, count = self._axis(image), int(self.R.randint(self.movements[0], self.movements[1] + 1))
        times = (np.arange(1, count + 1) + self.R.uniform(-_JITTER, _JITTER, count)) / (count + 1)
        dims = image.ndim - 1
        poses = [
            (
                self.R.uniform(-self.degrees, self.degrees, dims * (dims - 1) // 2),
                self.R.uniform(-self.translation, self.translation, dims),
            )
            for _ in range(count)
        ]
        lines = image.shape[axis]
        bounds = [int(lines * time) for time in times]
        images = [moved(image, *pose) for pose in poses]
        images.insert(sum(bound <= lines // 2 for bound in bounds), image.float())
        return put_together(images, bounds, axis).real


class RandGhostingd(_RandLinesd):
    """Something moves or pulses periodically while a scan is recorded: faint copies along one axis.

    Every n-th line of k-space is damped, but those of the lowest frequencies
    (:func:`rarevox.transforms.intensity.k_space.ghosted`). The copies lie size / n voxels apart and go round at the
    faces of the patch.

    Args:
        keys: images (C, *spatial).
        prob: of a patch.
        ghosts: least and largest n.
        intensity: least and largest share by which the lines are damped, 0 to 1.
        restore: share of the lines, those of the lowest frequencies, that stay; frequency 0 always does.
        axes: spatial axes along which copies may lie; one is drawn.
        channel_wise: draw anew for each channel, as scans of several contrasts are recorded one after the other.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: an option is wrong.

    Source: TorchIO's ``RandomGhosting`` (Pérez-García et al., Computer Methods and Programs in Biomedicine 2021). There
    the lines are counted from the lowest frequency on, not from 0, and the real part is taken of what comes out.

    Example:
        >>> patch = {"image": torch.rand(2, 12, 12, 12)}
        >>> out = RandGhostingd("image", prob=1.0).set_random_state(0)(patch)
        >>> torch.allclose(out["image"].mean(), patch["image"].mean(), atol=1e-6)
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.1,
        ghosts: Sequence[int] = (4, 10),
        intensity: Sequence[float] = (0.5, 1.0),
        restore: float = 0.0,
        axes: Sequence[int] = (0, 1, 2),
        channel_wise: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, axes, channel_wise, allow_missing_keys)
        if len(ghosts) != 2 or not 2 <= ghosts[0] <= ghosts[1]:
            raise ValueError(f"ghosts are {list(ghosts)}; expected the least and the largest number, 2 or more")
        if len(intensity) != 2 or not 0 <= intensity[0] <= intensity[1] <= 1:
            raise ValueError(f"intensity is {list(intensity)}; expected the least and the largest, within 0 to 1")
        if not 0 <= restore <= 1:
            raise ValueError(f"restore is {restore}; expected a share of 0 to 1")
        self.ghosts, self.intensity, self.restore = (int(ghosts[0]), int(ghosts[1])), tuple(intensity), restore

    def _changed(self, image: torch.Tensor) -> torch.Tensor:
        axis, ghosts = self._axis(image), int(self.R.randint(self.ghosts[0], self.ghosts[1] + 1))
        return ghosted(image, ghosts, float(self.R.uniform(*self.intensity)), axis, self.restore)
