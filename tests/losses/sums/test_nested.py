"""Depths in nested regions stand for labels that overlap: the same loss and gradient, and wrong depths are refused."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from rarevox import losses
from rarevox.losses import ComponentDiceCELoss, DiceLoss, overlap_sums
from rarevox.losses.sums.nested import nested_labels
from rarevox.transforms import component_regions
from tests.contracts.test_losses import LOSSES

TABLE_LOSSES = [loss for loss in LOSSES if not loss.needs_regions and "sigmoid" in inspect.signature(loss).parameters]
SHAPE = (2, 1, 4, 3, 5)


def _example(regions: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((2, regions, *SHAPE[2:]), generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(0, regions + 1, SHAPE, generator=generator)


def _each(depth: Tensor, regions: int = 3) -> Tensor:
    """(B, K, …) labels of the regions, written by hand."""
    return torch.cat([(depth >= number).long() for number in range(1, regions + 1)], 1)


@pytest.mark.parametrize("loss_class", TABLE_LOSSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_depths_give_what_a_label_map_for_each_region_gives(loss_class: type, dtype: torch.dtype) -> None:
    loss = loss_class(sigmoid=True)
    logits, depth = _example()
    found, wanted = loss(logits, depth.to(dtype)), loss(logits, _each(depth))
    assert found == wanted
    (gradient,) = torch.autograd.grad(found, logits)
    (expected,) = torch.autograd.grad(wanted, logits)
    assert torch.equal(gradient, expected)


def test_every_loss_of_ours_can_take_regions() -> None:
    assert [loss for loss in LOSSES if "sigmoid" not in inspect.signature(loss).parameters] == []


@pytest.mark.parametrize("loss_class", [DiceLoss, losses.DiceTopKLoss, losses.GeneralizedDiceCELoss])
@pytest.mark.parametrize("ignored", [255, -1, 300])
def test_voxels_to_ignore_count_in_no_region(loss_class: type, ignored: int) -> None:
    logits, depth = _example()
    marked = depth.clone()
    marked[..., 3:] = ignored
    wanted = loss_class(sigmoid=True)(logits[..., :3], depth[..., :3])
    torch.testing.assert_close(loss_class(sigmoid=True, ignore_index=ignored)(logits, marked), wanted)


@pytest.mark.parametrize("wrong", [4, -1, 255, 0.5])
def test_what_is_no_depth_is_refused(wrong: float) -> None:
    logits, depth = _example()
    marked = depth.double()
    marked[0, 0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match="labels reach"):
        DiceLoss(sigmoid=True)(logits, marked)


def test_the_reference_counts_of_nested_regions_by_hand() -> None:
    depth = torch.tensor([[[0, 0, 1, 1, 2, 3]]])
    table = overlap_sums(torch.zeros(1, 3, 6), depth, sigmoid=True)
    assert table.reference[0].tolist() == [[2.0, 4.0], [4.0, 2.0], [5.0, 1.0]]


def test_other_numbers_of_label_maps_are_refused() -> None:
    logits, depth = _example()
    with pytest.raises(ValueError, match="need labels of"):
        DiceLoss(sigmoid=True)(logits, torch.cat([depth, depth], 1))
    assert nested_labels(depth, 3, None)[1] is None


def test_components_of_nested_regions_are_those_of_each_region_by_itself() -> None:
    """The mean of the binary losses, each with the components of its own region."""
    depth = torch.tensor([[[1, 2, 2, 0, 0, 1, 2, 1, 2, 0]]])
    logits = torch.linspace(-2, 2, 20, dtype=torch.float64).view(1, 2, 10)
    regions = component_regions(depth[0], num_classes=3, nested=True)
    # The first region has two components, voxels 0 to 2 and 5 to 8, the second three.
    assert regions[:, [0, 1, 6, 8]].tolist() == [[1, 1, 2, 2], [1, 1, 2, 3]]
    loss = ComponentDiceCELoss(sigmoid=True)
    whole = loss(logits, torch.cat([depth, regions[None]], 1))
    alone = [loss(logits[:, k : k + 1], torch.cat([(depth > k).long(), regions[None, k : k + 1]], 1)) for k in range(2)]
    torch.testing.assert_close(whole, sum(alone) / 2)


def test_what_nobody_annotated_is_a_component_of_no_region() -> None:
    depth = torch.tensor([[1, 0, 255, 255, 2]], dtype=torch.uint8)
    found = component_regions(depth, num_classes=3, nested=True)
    assert found.max(1).values.tolist() == [2, 1]
