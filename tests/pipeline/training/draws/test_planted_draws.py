"""Planted draws: which of them, how many hold nothing, nothing beyond the volume."""

from __future__ import annotations

import math

import pytest
import torch

from rarevox.pipeline.training.draws.hard_patches import HardPatches
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms import (
    AnatomyMaskd,
    BackgroundMixSampler,
    BatchPlantLesions,
    IndexForegroundd,
    LesionLibrary,
    RandForegroundPatchd,
    RandPlantLesionsd,
)
from tests.transforms.planting.scans import scan

PATCH = (16, 16, 16)


def draws(background: float, share: float, *, into: str = "foreground", size: tuple[int, ...] = PATCH) -> PatchDataset:
    cases = [AnatomyMaskd()(scan(number, lesions=2)) for number in range(2)]
    sampler = BackgroundMixSampler(share=background)
    index = IndexForegroundd(sampler=sampler, patch_size=size)
    cases = [index(case) for case in cases]
    planting = RandPlantLesionsd("image", LesionLibrary(cases), prob=share, into=into)
    patch = RandForegroundPatchd(["image", "label"], size, sampler=sampler)
    return PatchDataset(cases, patch=patch, planting=BatchPlantLesions(planting), seed=3)


@pytest.mark.parametrize(("background", "share"), [(0.5, 0.5), (0.25, 1.0), (0.5, 1.0), (0.0, 0.5)])
def test_the_share_without_foreground_is_as_stated_and_of_the_others_the_planting_share_is_tried(
    background: float, share: float
) -> None:
    """Of 96 draws 96 s are silent, to the number; of the others n, n p are planted but for what finds no place, give or
    take five standard deviations of the draw, √(n p (1 − p))."""
    batch = draws(background, share).batch(range(96))
    silent = ~(batch["label"] > 0).flatten(1).any(1)
    planted = batch["planted"][:, 0] > 0
    assert int(silent.sum()) == 96 * background
    assert not (planted & silent).any()
    n = 96 * (1 - background)
    assert int(planted.sum()) <= n * share + 5 * math.sqrt(n * share * (1 - share))
    assert int(planted.sum()) >= 0.5 * (n * share - 5 * math.sqrt(n * share * (1 - share)))


def test_a_draw_is_a_function_of_its_number() -> None:
    data = draws(0.5, 1.0)
    whole = data.batch([6, 7, 8, 9])
    for row, draw in enumerate((6, 7, 8, 9)):
        single = data[draw]
        assert all(torch.equal(single[key], whole[key][row]) for key in whole), draw


def test_without_planting_the_draws_are_those_without_the_transform() -> None:
    data = draws(0.5, 0.0)
    plain = PatchDataset(data.data, patch=data.patch, seed=3).batch(range(8))
    planted = data.batch(range(8))
    assert "mask" not in plain and "mask" not in planted
    assert all(torch.equal(planted[key], plain[key]) for key in plain)


def test_hard_patches_are_never_planted_into() -> None:
    """Every patch that says it was drawn again for a false positive is still without foreground, and is scored."""
    data = draws(0.5, 1.0, into="any")
    hard = HardPatches(data, share=1.0)
    hard.scores = dict.fromkeys(map(data.place_of, (1, 3, 5)), 9)
    redrawn = 0
    for first in range(100, 140, 4):
        batch = data.batch(range(first, first + 4))
        hard.replace(batch)
        rows = batch["redrawn"] > 0
        assert not batch["label"][rows].any() and not batch["planted"][rows].any()
        assert (batch["planted_lesions"][rows][..., 0] == -1).all()
        redrawn += int(rows.sum())
    assert redrawn == 20


def test_nothing_is_planted_beyond_the_volume() -> None:
    """Patches larger than the scan along every axis: zeros beyond it, −5 in the scan's own air, neither is tissue."""
    data = draws(0.0, 1.0, size=(40, 40, 40))
    batch = data.batch(range(8))
    plain = data.patches([data.place_of(draw) for draw in range(8)])
    new = batch["label"] != plain["label"]
    assert int(new.sum()) == int(batch["planted"][:, 1].sum()) > 0
    changed = (batch["image"] != plain["image"]).any(1, keepdim=True)
    assert not (new | changed)[plain["mask"] == 0].any()
