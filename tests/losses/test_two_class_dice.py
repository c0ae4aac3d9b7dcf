"""DL2 as printed in the GDL paper."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import TwoClassDiceLoss


def printed_dl2(p, r):
    inside = (p * r).sum() / (p + r).sum()
    return 1 - inside - ((1 - p) * (1 - r)).sum() / (2 - p - r).sum()


@pytest.mark.parametrize("classes", [2, 4])
def test_printed_formula(printed, classes):
    logits, labels, _ = printed.example((2, classes, 4, 5, 6))
    t = printed.sums(logits, labels)
    each = [printed_dl2(t.p[b, c], t.r[b, c]) for b in range(2) for c in range(1, classes)]
    torch.testing.assert_close(TwoClassDiceLoss()(logits, labels), torch.stack(each).mean())


@pytest.mark.parametrize(
    ("reference", "predicted", "expected"),
    [
        (0, 0, 0.0),  # nothing there, nothing claimed: 1 − 1/2 − 4/8
        (0, 4, 1.0),  # nothing there, all claimed: 1 − 0 − 0/4
        (0, 1, 1 - 3 / 8 - 3 / 7),  # one of four claimed: 1 − ½(1 − 1/4) − 3/(3 + 4)
        (4, 4, 0.0),  # the structure fills the volume: 1 − 4/8 − 1/2
        (4, 3, 1 - 3 / 7 - 3 / 8),
    ],
)
def test_empty_rule(printed, reference, predicted, expected):
    labels, prediction = (torch.tensor([[[int(i < count) for i in range(4)]]]) for count in (reference, predicted))
    value = TwoClassDiceLoss()(printed.certain(prediction, 2), labels)
    assert value.item() == pytest.approx(expected, abs=1e-12)
