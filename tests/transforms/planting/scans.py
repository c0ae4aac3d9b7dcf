"""Scans made for planting: two tissues side by side in a block of content, bright lesions in the first."""

from __future__ import annotations

import numpy as np
import torch

SIZE = (32, 28, 24)


def scan(seed: int, lesions: int = 3) -> dict[str, torch.Tensor]:
    """Channels of tissue 1 and 2, −1 and −2, noise of 0.1; lesions of 8 to 27 voxels, 1.5 brighter; air −5."""
    random = np.random.default_rng(seed)
    image, labels = np.full((2, *SIZE), -5.0, np.float32), np.zeros(SIZE, np.uint8)
    block = (slice(3, 29), slice(3, 25), slice(2, 22))
    tissue = np.where(np.arange(SIZE[0])[:, None, None] < 20, 1.0, 2.0)
    for channel, sign in enumerate((1, -1)):
        image[channel][block] = (sign * tissue + 0.1 * random.standard_normal(SIZE))[block]
    for number in range(lesions):
        start, size = (6, 5 + 6 * number, 8), random.integers(2, 4, 3)
        where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        image[0][where] += 1.5
        image[1][where] += 1.5
        labels[where] = 1
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(labels)[None]}
