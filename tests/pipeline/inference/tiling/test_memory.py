from __future__ import annotations

import pytest
import torch

from rarevox.pipeline.inference.tiling.memory import Effort, activation_bytes, voxels_in_memory, with_less_each_time


def test_effort_steps_down_in_the_stated_order_and_ends() -> None:
    """Batch, then size three times by four, then where the results gather; 8³ = 512 voxels at first."""
    effort, words = Effort(voxels=2048, batch=4, on_device=True), []
    while (less := effort.less(512)) is not None:
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


def test_windows_are_asked_for_less_until_it_is_enough() -> None:
    """A window has one size: after single windows only the place of the results is left to change."""

    def attempt(effort: Effort, steps: list[str]) -> list[str]:
        if effort.batch > 1 or effort.on_device:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return steps

    steps = with_less_each_time(Effort(0, 4), attempt, lambda effort: None, torch.device("cpu"))
    assert steps == ["window batch 4 to 1", "results gathered on the CPU"]


def test_what_is_never_enough_or_no_lack_of_memory_is_raised() -> None:
    tried = []

    def attempt(effort: Effort, steps: list[str]) -> None:
        tried.append(effort)
        raise MemoryError if len(tried) < 20 else ValueError

    with pytest.raises(MemoryError):
        with_less_each_time(Effort(64, 2), attempt, lambda effort: int(effort.voxels), torch.device("cpu"))
    assert len(tried) == 6  # 2 tiles of 32, 1 of 32, then 8, 2, 1 voxels, then the results elsewhere
    tried += [Effort(0)] * 14
    with pytest.raises(ValueError, match="^$"):
        with_less_each_time(Effort(64, 2), attempt, lambda effort: int(effort.voxels), torch.device("cpu"))
    assert len(tried) == 21
