from __future__ import annotations

from pathlib import Path

import torch

from rarevox.pipeline.training.draws.patch_counts import PatchCounts
from rarevox.pipeline.training.draws.planted_counts import PlantedCounts

NONE = [-1, 0, 0]
LESIONS = torch.tensor([[[1, 9, 0], [0, 5, 25]], [NONE, NONE], [[-2, 0, 100], NONE], [[1, 0, 10], [1, 99, 0]]])
"""Of two structures: of case 1 lesions of 9, 10 and 99 voxels, of case 0 one of both structures, a shape of map 0."""


def test_by_hand() -> None:
    counts = PlantedCounts(["core", "oedema"], 2, [{"case": "a"}, {"case": "b"}])
    counts.take(LESIONS)
    assert counts.summary() == {
        "patches": 3,
        "lesions": 5,
        "voxels": 9 + 30 + 100 + 10 + 99,
        "structures": {"core": {"lesions": 3, "voxels": 113}, "oedema": {"lesions": 3, "voxels": 135}},
        "sizes": {"1 to 9": 1, "10 to 29": 1, "30 to 99": 2, "100 or more": 1},
        "donors": {"a": 1, "b": 3},
        "maps": 1,
    }


def test_cases_without_names_are_numbered_and_nothing_planted_is_nothing() -> None:
    counts = PlantedCounts(["core", "oedema"], 2)
    assert counts.summary()["lesions"] == 0 and counts.summary()["donors"] == {}
    counts.take(LESIONS)
    assert counts.summary()["donors"] == {"0": 1, "1": 3}


def test_fewer_classes_may_be_planted_than_there_are_structures() -> None:
    counts = PlantedCounts(["core", "oedema"], 2)
    counts.take(LESIONS[..., :2])
    assert counts.summary()["structures"] == {
        "core": {"lesions": 3, "voxels": 113},
        "oedema": {"lesions": 0, "voxels": 0},
    }


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    def run(counts: PatchCounts, batches: int) -> PatchCounts:
        for _ in range(batches):
            label = torch.zeros(4, 1, 2, 2, 2, dtype=torch.uint8)
            counts.count({"label": label, "planted_lesions": LESIONS})
        return counts

    def new() -> PatchCounts:
        return PatchCounts(tmp_path, structures=["core", "oedema"], margin=(0, 0, 0), cases=2)

    parts = new()
    parts.load_state_dict(run(new(), 2).state_dict())
    assert run(parts, 3).summary()["planted"] == run(new(), 5).summary()["planted"]
    assert parts.summary()["planted"]["lesions"] == 25
    # A checkpoint of before these counts: what was counted then is kept.
    older = {key: value for key, value in new().state_dict().items() if not key.startswith("planted_")}
    parts = new()
    parts.load_state_dict(older | {"planted": torch.tensor([1, 2, 30])})
    # Of parts nothing was counted then, and parts of the rest would contradict the totals.
    assert set(run(parts, 1).summary()["planted"]) == {"patches", "lesions", "voxels"}
    assert parts.summary()["planted"]["lesions"] == 7
