from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.storage.entry import open_entry, write_entry
from rarevox.pipeline.storage.stored_index import can_store, index_arrays, index_from
from rarevox.transforms import (
    BackgroundMixSampler,
    ClassBalancedSampler,
    ForegroundUniformSampler,
    GridSampler,
    LesionBalancedSampler,
    PatchFrame,
    PatchSampler,
    UniformSampler,
)

SAMPLERS = [
    ClassBalancedSampler(),
    LesionBalancedSampler(),
    ForegroundUniformSampler(2),
    UniformSampler(),
    GridSampler(),
    BackgroundMixSampler(LesionBalancedSampler(), 0.5),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_stored_index_draws_the_same_patches(tmp_path: Path, sampler: PatchSampler, share: float) -> None:
    random = np.random.default_rng(3)
    labels = random.integers(1, 3, (9, 8, 7)) * (random.random((9, 8, 7)) < share)
    frame = PatchFrame.of((4, 4, 4), 1)
    index = sampler.index(labels, frame)
    assert can_store(index)
    write_entry(tmp_path / "index", *index_arrays(index))
    stored = index_from(*open_entry(tmp_path / "index"))
    assert (stored.shape, stored.rule) == (index.shape, index.rule)
    a, b = np.random.RandomState(1), np.random.RandomState(1)
    assert [sampler.draw(index, frame, a) for _ in range(50)] == [sampler.draw(stored, frame, b) for _ in range(50)]


def test_an_index_of_another_kind_is_not_stored() -> None:
    assert not can_store({"voxels": np.zeros(3)})
