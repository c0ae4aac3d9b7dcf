"""Sums over regions against the table of sums, and their gradient."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import NonFiniteLogitsError, overlap_sums
from rarevox.losses.sums import chunks
from rarevox.losses.sums.regions import RegionSums, region_sums

COLUMNS = ("voxels", "probability", "reference", "intersection")


@pytest.fixture
def example(printed, monkeypatch):
    """Logits, labels, weight and regions 0 to 3 of two foreground classes, in pieces of a few voxels."""
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 50)
    logits, labels, weight = printed.example((2, 3, 3, 4, 5))
    regions = torch.randint(0, 4, (2, 2, 3, 4, 5), generator=torch.Generator().manual_seed(3))
    return logits, labels, weight, regions


@pytest.mark.parametrize("ignore", [None, 1])
def test_regions_add_up_to_the_table(example, ignore):
    logits, labels, weight, regions = example
    sums = region_sums(logits, labels, weight, regions, ignore_index=ignore)
    table = overlap_sums(logits, labels, weight, ignore_index=ignore)
    for name in COLUMNS:
        assert getattr(sums, name).shape == (2, 2, 4)
        torch.testing.assert_close(getattr(sums, name).sum(-1), getattr(table, name)[:, 1:], rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.cross_entropy, table.cross_entropy.sum(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.weight, table.voxels[:, 0], rtol=1e-12, atol=0)


def test_a_region_is_the_table_of_its_voxels(example):
    logits, labels, weight, regions = example
    sums = region_sums(logits, labels, weight, regions)
    inside = (regions[:, 1:] == 2) * weight  # region 2 of class 2
    table = overlap_sums(logits, labels, inside)
    for name in COLUMNS:
        torch.testing.assert_close(getattr(sums, name)[:, 1, 2], getattr(table, name)[:, 2], rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradient(example, sigmoid):
    logits, labels, weight, regions = example
    if sigmoid:
        logits, labels, regions = logits[:, :1], labels.clamp(max=1), regions[:, :1]

    def stacked(z: torch.Tensor) -> torch.Tensor:
        sums: RegionSums = region_sums(z, labels, weight, regions, sigmoid=sigmoid)
        return torch.cat([column.flatten() for column in sums])

    assert torch.autograd.gradcheck(stacked, logits.clone().requires_grad_())


def test_what_the_table_refuses_is_refused(example):
    logits, labels, weight, regions = example
    with pytest.raises(ValueError, match="labels reach from 1 to 3"):
        region_sums(logits, labels + 1, weight, regions)
    with pytest.raises(NonFiniteLogitsError):
        region_sums(logits * float("nan"), labels, weight, regions)
