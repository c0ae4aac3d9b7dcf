"""WCE with the paper's weight: its value, and its gradient with the weight held still."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rarevox.losses import WeightedCrossEntropyLoss


def test_printed_formula_and_no_gradient_through_the_weight(printed):
    logits, labels, _ = printed.example((1, 2, 4, 5, 6))
    gradients, values = [], []
    for mine in (True, False):
        leaf = logits.clone().requires_grad_()
        if mine:
            value = WeightedCrossEntropyLoss()(leaf, labels)
        else:
            p, r = torch.softmax(leaf, 1)[0, 1], labels[0, 0].double()
            w = ((p.numel() - p.sum()) / p.sum()).detach()
            value = -(w * r * p.log() + (1 - r) * (1 - p).log()).mean()
        value.backward()
        values.append(value.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_more_classes_and_samples(printed):
    logits, labels, weight = printed.example((2, 4, 5, 6))
    t = printed.sums(logits, labels, weight)
    w = (t.voxels - t.probability) / t.probability
    w[:, 0] = 1
    expected = ((w * t.cross_entropy).sum(1) / t.voxels[:, 0]).mean()
    torch.testing.assert_close(WeightedCrossEntropyLoss()(logits, labels, weight), expected)


def test_fixed_class_weights_agree_with_torch(printed):
    logits, labels, _ = printed.example()
    weights = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    loss = WeightedCrossEntropyLoss(class_weights=weights.tolist(), batch=True)
    torch.testing.assert_close(loss(logits, labels), functional.cross_entropy(logits, labels[:, 0], weight=weights))


def test_a_class_predicted_nowhere_has_a_bounded_weight():
    # One voxel of four, missed by 160 nats: w = (4 − 1e-4) / 1e-4, and w · 160 / 4 in all.
    logits = torch.tensor([[[80.0, 80, 80, 80], [-80, -80, -80, -80]]])
    value = WeightedCrossEntropyLoss()(logits, torch.tensor([[[1, 0, 0, 0]]]))
    assert value.item() == pytest.approx((4 - 1e-4) / 1e-4 * 160 / 4, rel=1e-6)
