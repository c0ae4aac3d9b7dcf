from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.pipeline.training.draws.patch_counts import PatchCounts, class_counts, share_bin


def batch(labels: torch.Tensor, cases: list[int], starts: list[list[int]], size: list[int]) -> dict[str, torch.Tensor]:
    place = {"case_number": cases, "patch_start": starts, "volume_size": [size] * len(cases)}
    return {"label": labels, **{key: torch.tensor(value) for key, value in place.items()}}


def test_counts_by_hand(tmp_path: Path) -> None:
    """Two patches of 4×4 of which the loss sees the inner 2×2: the first holds one voxel of a (and one outside that
    does not count), the second none. One foreground voxel in eight; the median of shares 0 and 1/4 is 0."""
    labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    labels[0, 0, 1, 1] = labels[0, 0, 0, 0] = 1
    labels[1, 0, 3, 3] = 2
    counts = PatchCounts(tmp_path, structures=["a", "b"], margin=(1, 1), cases=2)
    counts.count(batch(labels, [0, 0], [[-1, -1], [15, 31]], [16, 32]))
    counts.write()
    found = json.loads((tmp_path / "patches.json").read_text())
    assert (found["patches"], found["iterations"], found["effective_size"]) == (2, 1, [2, 2])
    assert found["foreground_share"]["mean"] == 1 / 8
    assert (found["foreground_share"]["p50"], found["imbalance"], found["without_foreground"]) == (0, None, 1)
    assert found["foreground_share"]["p95"] == pytest.approx(0.25, rel=0.012)
    assert found["structures"]["a"] == {"patches": 1, "patch_share": 0.5, "voxels": 1, "voxel_share": 1 / 8}
    assert found["structures"]["b"] == {"patches": 0, "patch_share": 0, "voxels": 0, "voxel_share": 0}
    # Regions [0, 2)×[0, 2) and [16, 18)×[32, 34) of a 16×32 volume: the first holds points 0, 1 × 0, the second none.
    assert found["coverage"] == {"cases": 2, "cases_drawn": 1, "volume_share": 2 / 256 / 2}


def test_patches_that_tile_the_volumes_cover_all_of_them() -> None:
    counts = PatchCounts("", structures=["a"], margin=(1, 0), cases=2)
    for case in (0, 1):
        for x in range(0, 21, 5):
            for y in range(0, 12, 6):
                counts.count(batch(torch.zeros(1, 1, 7, 6), [case], [[x - 1, y]], [23, 12]))
    assert counts.summary()["coverage"] == {"cases": 2, "cases_drawn": 2, "volume_share": 1.0}


def test_quantiles_follow_the_shares_to_one_step() -> None:
    """Patches of 1000 voxels with 1, 2, …, 99 of foreground: the median holds 50, 1 : 19."""
    counts = PatchCounts("", structures=["a"], margin=(0,), cases=1)
    for number in range(1, 100):
        counts.count({"label": (torch.arange(1000) < number).to(torch.uint8)[None, None]})
    found = counts.summary()
    assert found["foreground_share"]["p50"] == pytest.approx(0.05, rel=0.015)
    assert found["imbalance"] == pytest.approx(19, rel=0.015)
    assert found["foreground_share"]["mean"] == pytest.approx(0.05)
    assert found["coverage"] == {"cases": 1, "cases_drawn": 0, "volume_share": None}


def test_a_resumed_count_equals_one_in_a_row(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    batches = [
        batch((torch.rand(2, 1, 6, 6, generator=random) < 0.1).long(), [n % 3, 1], [[n, n], [0, 2 * n]], [20, 20])
        for n in range(6)
    ]
    whole, before, after = (PatchCounts(tmp_path, structures=["a"], margin=(1, 0), cases=3) for _ in range(3))
    for item in batches:
        whole.count(item)
    for item in batches[:4]:
        before.count(item)
    torch.save(before.state_dict(), tmp_path / "state.pt")
    before.count(batches[4])  # steps after the checkpoint are lost with the process and drawn again
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for item in batches[4:]:
        after.count(item)
    assert after.summary() == whole.summary()


@pytest.mark.parametrize("classes", [3, 20])
def test_class_counts_are_bincount(classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    assert class_counts(labels, classes).tolist() == np.bincount(labels.ravel(), minlength=classes).tolist()


def test_steps_of_shares_are_in_range() -> None:
    assert share_bin(1e-20) == 1
    assert [share_bin(10 ** (-9 + k / 100)) in (k, k + 1) for k in range(1, 900)] == [True] * 899


def test_a_run_writes_what_it_drew(run_dir: Path) -> None:
    """80 steps of 2 patches of 16³ on 4 training cases; both structures are drawn by the class-balanced sampler."""
    found = json.loads((run_dir / "logs" / "patches.json").read_text())
    assert (found["iterations"], found["patches"], found["effective_size"]) == (80, 160, [16, 16, 16])
    assert found["without_foreground"] == 0
    assert found["coverage"]["cases_drawn"] == found["coverage"]["cases"] == 4
    assert found["coverage"]["volume_share"] > 0.8
    assert min(found["structures"][name]["patches"] for name in ("ball", "box")) >= 60
