"""Soft Dice loss, linear and squared."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import DiceLoss, hard_sums


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_printed_formula_and_monai(printed, squared, include_background, batch):
    logits, labels, _ = printed.example((2, 3, 4, 5, 6))
    t = printed.sums(logits, labels)
    pr, p, r = t.intersection, t.probability_squared if squared else t.probability, t.reference
    if batch:
        pr, p, r = (column.sum(0, keepdim=True) for column in (pr, p, r))
    cost = 1 - 2 * pr / (p + r)
    expected = cost[:, 0 if include_background else 1 :].mean()
    mine = DiceLoss(squared=squared, include_background=include_background, batch=batch)(logits, labels)
    torch.testing.assert_close(mine, expected)
    peer = pytest.importorskip("monai.losses").DiceLoss(
        softmax=True,
        to_onehot_y=True,
        squared_pred=squared,
        include_background=include_background,
        batch=batch,
        smooth_nr=0.0,
        smooth_dr=0.0,
    )
    torch.testing.assert_close(mine, peer(logits, labels))


def test_voxel_weights(printed):
    logits, labels, weight = printed.example()
    t = printed.sums(logits, labels, weight)
    expected = (1 - 2 * t.intersection / (t.probability + t.reference)).mean()
    torch.testing.assert_close(DiceLoss()(logits, labels, weight), expected)


def test_binary_logit_without_background_is_the_dice_of_the_structure(printed):
    logits, labels, _ = printed.example((2, 2, 4, 5))
    binary = logits[:, 1:] - logits[:, :1]
    p, r = torch.sigmoid(binary), labels.double()
    axes = (1, 2, 3)
    expected = (1 - 2 * (p * r).sum(axes) / (p.sum(axes) + r.sum(axes))).mean()
    torch.testing.assert_close(DiceLoss(sigmoid=True, include_background=False)(binary, labels), expected)


def test_overlapping_labels_are_averaged_over(printed):
    logits, _, weight = printed.example((2, 3, 4, 5))
    labels = (torch.arange(logits.numel()).view(logits.shape) % 3 == 0).long()
    loss = DiceLoss(sigmoid=True)
    alone = [loss(logits[:, [i]], labels[:, [i]], weight) for i in range(3)]
    torch.testing.assert_close(loss(logits, labels, weight), torch.stack(alone).mean())


@pytest.mark.parametrize(("squared", "expected"), [(False, 0.25), (True, 0.125)])
def test_a_class_without_reference_costs_its_share_of_the_volume(squared, expected):
    # p = 1/2 on two of four voxels and 0 elsewhere: Σp / N = 1/4, Σp² / N = 1/8. Only class 1 takes part.
    logits = torch.tensor([[[0.0, 0, 200, 200], [0, 0, -200, -200]]], dtype=torch.float64)
    loss = DiceLoss(squared=squared, include_background=False)
    assert loss(logits, torch.zeros(1, 1, 4)).item() == pytest.approx(expected)


def test_hard_sums_give_the_hard_dice():
    prediction, labels = torch.tensor([[[0, 0, 1, 1, 1]]]), torch.tensor([[[0, 1, 1, 1, 0]]])
    # class 1: 2·2 / (3 + 3); class 0: 2·1 / (2 + 2)
    table = hard_sums(prediction, labels, num_classes=2).map(torch.Tensor.double)
    assert DiceLoss().cost(table).item() == pytest.approx(1 - (4 / 6 + 2 / 4) / 2)
