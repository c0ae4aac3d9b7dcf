from __future__ import annotations

import torch

from rarevox.pipeline.inference.memory import Effort, activation_bytes, voxels_in_memory
from rarevox.pipeline.inference.tiles import AxisRule, plan


def test_effort_steps_down_in_the_stated_order_and_ends() -> None:
    """Batch, then size three times by four, then where the results gather; 8³ = 512 voxels at first."""
    effort, words = Effort(voxels=2048, batch=4, on_device=True), []
    tiles = list(plan((8, 8, 8), (1, 1, 1), [AxisRule()] * 3))
    while (less := effort.less(tiles)) is not None:
        effort = less[0]
        words.append(less[1])
    assert words[0] == "tile batch 4 to 1"
    assert words[1:4] == ["tiles of 512 voxels to 128"] * 3  # of the same tiles each time
    assert words[4:] == ["results gathered on the CPU"]
    assert effort == Effort(128, 1, False, 3)


def test_a_budget_is_voxels_times_what_a_voxel_takes() -> None:
    """The widest layer has 3 + 5 channels; twice that in float32 is 64 bytes a voxel, so 64 kB are 1000 voxels."""
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 1), torch.nn.Conv3d(3, 5, 1))
    assert activation_bytes(network, 4) == 64
    assert round(voxels_in_memory(network, torch.device("cpu"), None, 64e-6)) == 1000
