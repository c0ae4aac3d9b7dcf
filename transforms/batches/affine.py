"""Rotation, scaling and shear of whole batches, where the batch lies, that keep foreground in sight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from rarevox.transforms.batches.intensity import Batch, BatchTransform, Generators, sent
from rarevox.transforms.labels import is_ignored


class BatchAffine(BatchTransform):
    """Rotate, scale and shear patches about their centre; voxels from beyond the patch repeat its border.

    The value at voxel x comes from M·(x − c) + c, c being the centre, M = R₀·R₁·R₂·(1 + shear)·diag(1 + scale): linear
    interpolation for images, the nearest voxel for labels. A patch in which the loss would then see no foreground any
    more, though it did before, stays as it was.

    Args:
        keys: the images (B, C, X, Y, Z), interpolated linearly.
        label_key: the label map, class indices (in its first channel).
        rotate: largest angle about each axis, radians; uniform on both sides.
        scale: largest relative change of size along each axis; uniform on both sides.
        shear: largest shear; uniform on both sides, for each pair of axes.
        margin: voxels from each face that the loss does not see, one an axis or one for all.
        prob: of each patch.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "image",
        label_key: str = "label",
        *,
        rotate: Sequence[float] = (0.0, 0.0, 0.0),
        scale: Sequence[float] = (0.0, 0.0, 0.0),
        shear: float = 0.0,
        margin: int | Sequence[int] = 0,
        prob: float = 0.5,
    ) -> None:
        super().__init__(keys, prob)
        self.label_key = label_key
        self.rotate = tuple(rotate)
        self.scale = tuple(scale)
        self.shear = shear
        self.margin = (margin,) * 3 if isinstance(margin, int) else tuple(margin)

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Transform the chosen patches."""
        rows = self.chosen(generators)
        matrices = [self.matrix(generator) for generator in generators]
        if not rows:
            return batch
        labels = batch[self.label_key]
        where = sent(torch.tensor(rows), labels.device)
        grid = sampling_grid(np.stack([matrices[row] for row in rows]), labels.shape[2:], labels.device)
        before = labels[where]
        after = F.grid_sample(before.float(), grid, "nearest", "border", align_corners=False).to(before.dtype)
        # Chosen voxel by voxel: how many patches are kept, only the device could tell, and the host would wait for it.
        kept = (self._seen(after) | ~self._seen(before)).view(-1, 1, 1, 1, 1)
        labels[where] = torch.where(kept, after, before)
        for key in self.keys:
            images = batch[key]
            still = images[where]
            moved = F.grid_sample(still, grid, "bilinear", "border", align_corners=False)
            images[where] = torch.where(kept, moved, still)
        return batch

    def matrix(self, generator: np.random.Generator) -> np.ndarray:
        """A 3×3 matrix M of voxel coordinates; twelve numbers are drawn."""
        matrix = np.eye(3)
        for axis, largest in enumerate(self.rotate):
            angle = generator.uniform(-largest, largest)
            first, second = (a for a in range(3) if a != axis)
            turn = np.eye(3)
            turn[first, first] = turn[second, second] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
        shear = np.eye(3) + generator.uniform(-self.shear, self.shear, (3, 3)) * (1 - np.eye(3))
        sizes = [1 + generator.uniform(-largest, largest) for largest in self.scale]
        return matrix @ shear @ np.diag(sizes)

    def _seen(self, labels: torch.Tensor) -> torch.Tensor:
        """For each patch whether the loss sees foreground."""
        seen = labels[:, 0]
        for axis, margin in enumerate(self.margin, start=1):
            seen = seen.narrow(axis, margin, seen.shape[axis] - 2 * margin)
        return ((seen != 0) & ~is_ignored(seen)).flatten(1).any(1)


def sampling_grid(matrices: np.ndarray, size: Sequence[int], device: torch.device | None = None) -> torch.Tensor:
    """``grid_sample``'s grid (B, X, Y, Z, 3) for matrices (B, 3, 3) of voxel coordinates about the centre.

    It is made on ``device``, the CPU by default.
    ``grid_sample`` counts each axis from −1 to 1, last axis first.

    >>> float(sampling_grid(np.eye(3)[None], (2, 2, 2))[0, 1, 0, 0, 2])
    0.5
    """
    half = np.asarray(size) / 2
    scaled = matrices * half[None, None, :] / half[None, :, None]
    reversed_axes = scaled[:, ::-1, ::-1]
    theta = np.concatenate([reversed_axes, np.zeros((len(matrices), 3, 1))], axis=2)
    # Twelve numbers a patch are sent, not three for each voxel.
    numbers = sent(torch.from_numpy(theta.copy()).float(), torch.device("cpu") if device is None else device)
    return F.affine_grid(numbers, [len(matrices), 1, *size], align_corners=False)
