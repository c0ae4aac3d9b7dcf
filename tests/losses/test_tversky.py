"""Tversky and focal Tversky losses."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import DiceLoss, FocalTverskyLoss, TverskyLoss


def test_printed_formula_and_monai(printed):
    logits, labels, _ = printed.example()
    t = printed.sums(logits, labels)
    axes = (2, 3, 4)
    tp, fp, fn = (t.p * t.r).sum(axes), (t.p * (1 - t.r)).sum(axes), ((1 - t.p) * t.r).sum(axes)
    index = tp / (tp + 0.2 * fp + 0.9 * fn)
    torch.testing.assert_close(TverskyLoss(alpha=0.2, beta=0.9)(logits, labels), (1 - index).mean())
    focal = FocalTverskyLoss(alpha=0.2, beta=0.9, gamma=2)(logits, labels)
    torch.testing.assert_close(focal, (1 - index).sqrt().mean())
    peer = pytest.importorskip("monai.losses").TverskyLoss(
        softmax=True, to_onehot_y=True, alpha=0.2, beta=0.9, smooth_nr=0.0, smooth_dr=0.0
    )
    torch.testing.assert_close(TverskyLoss(alpha=0.2, beta=0.9)(logits, labels), peer(logits, labels))


def test_half_and_half_is_the_dice_loss(printed):
    logits, labels, weight = printed.example()
    tversky = TverskyLoss(alpha=0.5, beta=0.5)
    torch.testing.assert_close(tversky(logits, labels, weight), DiceLoss()(logits, labels, weight))


def test_gamma_of_one_is_the_tversky_loss(printed):
    logits, labels, weight = printed.example()
    torch.testing.assert_close(FocalTverskyLoss(gamma=1)(logits, labels, weight), TverskyLoss()(logits, labels, weight))


def test_a_solved_class_has_a_finite_gradient(printed):
    labels = torch.tensor([[[0, 0, 1, 1]]])
    logits = printed.certain(labels, 2).requires_grad_()
    value = FocalTverskyLoss()(logits, labels)
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (TverskyLoss, {"alpha": 0}, "alpha=0 is out of range; expected a finite number above 0"),
        (TverskyLoss, {"beta": float("inf")}, "beta=inf"),
        (FocalTverskyLoss, {"gamma": 0.1}, "gamma=0.1"),
        (FocalTverskyLoss, {"gamma": 4}, "gamma=4"),
    ],
)
def test_options_are_checked(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)
