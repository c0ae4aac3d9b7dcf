"""Means over mirror images: of probabilities, which stay nested where the classes are nested regions."""

from __future__ import annotations

import numpy as np
import torch

from rarevox.pipeline.inference.tiling.mirrored import mirrored_mean
from rarevox.transforms.nested import NestedDecision


def test_means_of_nested_regions_are_those_of_their_nested_probabilities() -> None:
    """An inner region that one image marks without the outer one is not marked there, and adds nothing to the mean."""
    p = np.array([[0.9, 0.1], [0.2, 0.9]])  # of whole and core, in a voxel and in its mirror image
    logits = torch.from_numpy(np.log(p / (1 - p))).float()[None]

    def call(block: torch.Tensor) -> torch.Tensor:
        return logits if block[0, 0, 0] == 0 else logits.flip(2)

    block = torch.tensor([[[0.0, 1.0]]])
    # The second image is turned back, so that either voxel has both of its images' probabilities: here twice the same.
    found = mirrored_mean(block, call, [0], nested=True)[0].sigmoid()
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.1], [0.2, 0.1]]), rtol=1e-5, atol=1e-6)

    def turned(block: torch.Tensor) -> torch.Tensor:
        return logits  # the same in both images: turned back, a voxel has the one and the other

    found = mirrored_mean(block, turned, [0], nested=True)[0]
    torch.testing.assert_close(found.sigmoid(), torch.full((2, 2), 0.5).mul(torch.tensor([[1.0], [0.3]])))
    points = {name: {"threshold": 0.4} for name in ("whole", "core")}
    decided = NestedDecision(points, ["whole", "core"]).weighted_logits(found, 1.0).argmax(0)
    assert decided.tolist() == [1, 1]  # sigmoids averaged each by itself, 0.55 for the core, would say 2
