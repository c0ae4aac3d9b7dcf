"""Contrast and blur of whole batches, where the batch lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d

from rarevox.transforms.batches.intensity import Batch, BatchTransform, Generators, sent

_EPSILON = 1e-7  # MONAI's, against a patch of one value
_REACH = 4.0  # sigmas, MONAI's


class BatchAdjustContrast(BatchTransform):
    """((x − l) / r)^g · r + l, from l the smallest to l + r the largest value of a patch, g uniform in ``gamma``.

    Args:
        keys: the images (B, C, *spatial).
        gamma: the limits of g, both above 0.
        prob: of each patch.

    Raises:
        ValueError: ``gamma`` is not two numbers above 0.

    Source: MONAI's ``RandAdjustContrast``.

    >>> import numpy as np
    >>> half = BatchAdjustContrast("image", gamma=[2, 2], prob=1)
    >>> half({"image": torch.tensor([[[0.0, 1.0, 2.0]]])}, [np.random.default_rng(0)])["image"].tolist()
    [[[0.0, 0.5, 2.0]]]
    """

    def __init__(self, keys: str | Sequence[str], gamma: Sequence[float] = (0.7, 1.5), prob: float = 0.3) -> None:
        super().__init__(keys, prob)
        low, high = sorted(float(g) for g in gamma)
        if low <= 0:
            raise ValueError(f"gamma is {list(gamma)}; expected two numbers above 0")
        self.low, self.high = low, high

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Change the chosen patches."""
        rows = self.chosen(generators)
        drawn = [generator.uniform(self.low, self.high) for generator in generators]
        for key in self.keys if rows else ():
            images = batch[key]
            where = sent(torch.tensor(rows), images.device)
            some = images[where]
            each = tuple(range(1, some.ndim))
            gamma = sent(torch.tensor([drawn[row] for row in rows]), images.device).to(some.dtype)
            low = some.amin(each, keepdim=True)
            extent = some.amax(each, keepdim=True) - low
            share = (some - low) / (extent + _EPSILON)
            images[where] = share.pow_(gamma.view(-1, *(1,) * (some.ndim - 1))).mul_(extent).add_(low)
        return batch


class BatchGaussianSmooth(BatchTransform):
    """Convolve with a Gaussian whose sigma, in voxels, is uniform within ``sigma`` along each axis; zeros lie beyond.

    Args:
        keys: the images (B, C, X, Y, Z).
        sigma: the limits, for each axis; (0, 0) leaves an axis as it is.
        prob: of each patch.

    Raises:
        ValueError: not three pairs of numbers from 0.

    Source: MONAI's ``RandGaussianSmooth``.

    >>> import numpy as np
    >>> blur = BatchGaussianSmooth("image", sigma=[(0, 0), (0, 0), (0.5, 0.5)], prob=1)
    >>> spread = blur({"image": torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)}, [np.random.default_rng(0)])
    >>> [round(float(x), 3) for x in spread["image"].flatten()]
    [0.157, 0.683, 0.157]
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        sigma: Sequence[Sequence[float]] = ((0.3, 1.0), (0.3, 1.0), (0.3, 1.0)),
        prob: float = 0.1,
    ) -> None:
        super().__init__(keys, prob)
        if len(sigma) != 3 or any(len(pair) != 2 or min(pair) < 0 for pair in sigma):
            raise ValueError(f"sigma is {list(sigma)}; expected two numbers from 0 for each of three axes")
        self.sigma = [(float(min(pair)), float(max(pair))) for pair in sigma]
        # One length for all patches, so that they go through one convolution.
        self.tails = [int(max(_REACH * pair[1], 0.5) + 0.5) for pair in self.sigma]

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Blur the chosen patches."""
        rows = self.chosen(generators)
        drawn = [[generator.uniform(low, high) for low, high in self.sigma] for generator in generators]
        kernels = [torch.stack([self._kernel(drawn[row][axis], axis) for row in rows]) for axis in range(3) if rows]
        for key in self.keys if rows else ():
            images = batch[key]
            where = sent(torch.tensor(rows), images.device)
            some = images[where]
            channels, size = some.shape[1], some.shape[2:]
            # A patch's channels are groups of one convolution, each with the patch's own kernel.
            flat = some.reshape(1, -1, *size)
            for axis, kernel in enumerate(kernels):
                shape = [1, 1, 1, 1]
                shape[axis + 1] = kernel.shape[1]
                weight = sent(kernel, images.device).to(some.dtype).repeat_interleave(channels, 0)
                padding = [n // 2 for n in shape[1:]]
                flat = F.conv3d(flat, weight.view(-1, *shape), padding=padding, groups=flat.shape[1])
            images[where] = flat.view(some.shape)
        return batch

    def _kernel(self, sigma: float, axis: int) -> torch.Tensor:
        """MONAI's kernel, in zeros to the length of the widest."""
        kernel = gaussian_1d(torch.tensor(sigma), truncated=_REACH)
        missing = self.tails[axis] - len(kernel) // 2
        return F.pad(kernel, (missing, missing))
