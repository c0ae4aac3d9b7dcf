"""SS as printed in the GDL paper."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import SensitivitySpecificityLoss


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("sensitivity", [0.0, 0.05, 1.0])
def test_printed_formula(printed, classes, sensitivity):
    logits, labels, weight = printed.example((2, classes, 4, 5, 6))
    t = printed.sums(logits, labels)
    error = weight * (t.r - t.p) ** 2
    axes = (2, 3, 4)
    inside = (error * t.r).sum(axes) / (weight * t.r).sum(axes)
    outside = (error * (1 - t.r)).sum(axes) / (weight * (1 - t.r)).sum(axes)
    expected = (sensitivity * inside + (1 - sensitivity) * outside)[:, 1:].mean()
    loss = SensitivitySpecificityLoss(sensitivity=sensitivity)
    torch.testing.assert_close(loss(logits, labels, weight), expected)


def test_empty_rule(printed):
    labels, full = torch.zeros(1, 1, 4), torch.ones(1, 1, 4)
    half = torch.zeros(1, 2, 4).double()  # p = 1/2: (1 − λ)/4 without reference, λ/4 where it fills the volume
    assert SensitivitySpecificityLoss()(half, labels).item() == pytest.approx(0.95 / 4)
    assert SensitivitySpecificityLoss()(half, full).item() == pytest.approx(0.05 / 4)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_sensitivity_is_checked(value):
    with pytest.raises(ValueError, match="sensitivity="):
        SensitivitySpecificityLoss(sensitivity=value)
