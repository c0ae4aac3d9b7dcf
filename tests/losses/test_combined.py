"""The two-term losses against their parts, PyTorch and MONAI."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rarevox.losses import (
    CrossEntropyLoss,
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    DiceTopKLoss,
    GeneralizedDiceCELoss,
    GeneralizedDiceLoss,
)
from rarevox.losses.dice_topk import _choose_on_device, hardest_weight


@pytest.mark.parametrize("options", [{}, {"include_background": False}, {"squared": True, "batch": True}])
def test_dice_ce_is_monais_and_its_parts(printed, options):
    logits, labels, _ = printed.example()
    mine = DiceCELoss(**options)(logits, labels)
    torch.testing.assert_close(mine, DiceLoss(**options)(logits, labels) + CrossEntropyLoss()(logits, labels))
    peer_options = {"squared_pred" if name == "squared" else name: value for name, value in options.items()}
    peer = pytest.importorskip("monai.losses").DiceCELoss(
        softmax=True, to_onehot_y=True, smooth_nr=0.0, smooth_dr=0.0, **peer_options
    )
    torch.testing.assert_close(mine, peer(logits, labels))


@pytest.mark.parametrize("options", [{}, {"include_background": False}, {"weighting": "simple", "batch": True}])
def test_gdl_ce_is_the_sum_of_its_parts(printed, options):
    logits, labels, weight = printed.example()
    parts = GeneralizedDiceLoss(**options)(logits, labels, weight)
    mine = GeneralizedDiceCELoss(**options)(logits, labels, weight)
    if options.get("batch"):
        torch.testing.assert_close(mine, parts + CrossEntropyLoss()(logits, labels, weight))
    else:
        torch.testing.assert_close(mine, parts + CrossEntropyLoss(batch=False)(logits, labels, weight))


def test_focal_term_is_monais(printed):
    logits, labels, _ = printed.example()
    peer = pytest.importorskip("monai.losses").FocalLoss(use_softmax=True, to_onehot_y=True, gamma=1.5)
    # MONAI works in float32 and averages over voxels and classes, we over voxels.
    expected = peer(logits, labels).item() * logits.shape[1]
    assert DiceFocalLoss(gamma=1.5).terms(logits, labels)["focal"].item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_discount_is_the_cross_entropy(printed):
    logits, labels, weight = printed.example()
    expected = DiceCELoss()(logits, labels, weight)
    torch.testing.assert_close(DiceFocalLoss(gamma=0)(logits, labels, weight), expected)


@pytest.mark.parametrize("batch", [False, True])
def test_topk_is_the_mean_of_the_sorted_cross_entropies(printed, batch):
    logits, labels, _ = printed.example()
    each = functional.cross_entropy(logits, labels[:, 0], reduction="none")
    rows = each.reshape(1 if batch else 2, -1)
    count = int(rows.shape[1] * 0.15)
    expected = rows.sort(descending=True).values[:, :count].mean()
    terms = DiceTopKLoss(percent=15, batch=batch).terms(logits, labels)
    torch.testing.assert_close(terms["cross_entropy"], expected)
    torch.testing.assert_close(terms["dice"], DiceLoss(batch=batch)(logits, labels))


def test_topk_of_everything_is_the_cross_entropy(printed):
    logits, labels, weight = printed.example()
    expected = DiceCELoss()(logits, labels, weight)
    torch.testing.assert_close(DiceTopKLoss(percent=100)(logits, labels, weight), expected)


def test_topk_chooses_for_each_overlapping_label(printed):
    logits, _, weight = printed.example((2, 3, 4, 5))
    labels = (torch.arange(logits.numel()).view(logits.shape) % 3 == 0).long()
    loss = DiceTopKLoss(percent=20, sigmoid=True)
    alone = [loss(logits[:, [i]], labels[:, [i]], weight) for i in range(3)]
    torch.testing.assert_close(loss(logits, labels, weight), torch.stack(alone).mean())


def test_equal_voxels_are_chosen_to_the_exact_number():
    chosen = hardest_weight(torch.ones(1, 1, 10), torch.ones(1, 1, 10), 0.3, batch=False)
    assert (chosen > 0).sum() == 3
    assert chosen.sum() == pytest.approx(10)


def test_at_least_one_voxel_is_chosen_and_none_of_weight_zero():
    entropy, weight = torch.tensor([[[5.0, 4.0, 1.0]]]), torch.tensor([[[0.0, 1.0, 1.0]]])
    assert hardest_weight(entropy, weight, 0.01, batch=False).tolist() == [[[0.0, 2.0, 0.0]]]


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (DiceTopKLoss, {"percent": 0}, "percent=0 is out of range"),
        (DiceTopKLoss, {"percent": 101}, "percent=101"),
        (DiceFocalLoss, {"gamma": -1}, "gamma=-1 is out of range"),
        (DiceFocalLoss, {"gamma": float("nan")}, "gamma=nan"),
        (DiceCELoss, {"alpha": 2}, "alpha=2 is out of range; expected a number from 0 to 1"),
        (GeneralizedDiceCELoss, {"weighting": "round"}, "weighting='round'"),
    ],
)
def test_options_are_checked(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("counted", ["all", "some", "none"])
def test_the_choice_that_waits_for_no_device_is_the_same(share, counted):
    """On a GPU voxels are chosen by their rank; a tenth of 30 voxels is 3, though 0.1 · 30 is no whole number."""
    entropy = torch.randperm(30, generator=torch.Generator().manual_seed(3)).double()
    weight = {"all": torch.ones(30), "some": torch.arange(30) % 3 / 2, "none": torch.zeros(30)}[counted].double()
    expected = hardest_weight(entropy[None, None], weight[None, None], share, batch=False)[0, 0]
    chosen = torch.zeros(30, dtype=torch.float64)
    _choose_on_device(chosen, entropy.masked_fill(weight <= 0, -torch.inf), weight, share)
    torch.testing.assert_close(chosen, expected)
