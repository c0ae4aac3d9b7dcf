"""Generalised Dice loss: the paper's formula and gradient, the peers' slips, volumes from 1 to 10 million voxels."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import GeneralizedDiceLoss, SumTable
from tests.bounds import unit_roundoff


def printed_gdl(table, weights):
    """1 − 2 Σ_l w_l Σ_n r p / Σ_l w_l Σ_n (r + p)."""
    overlap = (weights * table.intersection).sum(-1)
    return (1 - 2 * overlap / (weights * (table.reference + table.probability)).sum(-1)).mean()


@pytest.mark.parametrize(("weighting", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
@pytest.mark.parametrize("shape", [(2, 2, 4, 5, 6), (3, 4, 6, 7)])
def test_printed_formula(printed, weighting, power, shape):
    logits, labels, weight = printed.example(shape)
    table = printed.sums(logits, labels, weight)
    expected = printed_gdl(table, 1 / table.reference**power)
    torch.testing.assert_close(GeneralizedDiceLoss(weighting=weighting)(logits, labels, weight), expected)


def test_closed_form_gradient_of_the_paper(printed):
    """The paper's ∂GDL/∂p_i for two classes (p of class 1, the other being 1 − p), times dp/dz = p (1 − p).

    With U = w1 Σpr + w2 Σ(1−p)(1−r) and D = (w1 − w2) Σ(p+r) + 2N w2, GDL = 1 − 2U/D has the derivative
    −2 (U'D − UD') / D², and U'D − UD' = (w1² − w2²)(r_i Σ(p+r) − Σpr) − N w2 (w1 + w2)(1 − 2 r_i). The printed bracket
    is the negative of this, so the printed leading −2 must read +2: with it the gradient descends, without it climbs.
    """
    logits, labels, _ = printed.example((1, 2, 5, 6, 7))
    logits = torch.cat((torch.zeros_like(logits[:, :1]), logits[:, 1:]), 1).requires_grad_()
    GeneralizedDiceLoss()(logits, labels).backward()
    r = labels[0, 0].double().flatten()
    p = torch.sigmoid(logits.detach()[0, 1].flatten())
    n, w1, w2 = r.numel(), 1 / r.sum() ** 2, 1 / (1 - r).sum() ** 2
    bracket = (w1**2 - w2**2) * ((p * r).sum() - r * (p + r).sum()) + n * w2 * (w1 + w2) * (1 - 2 * r)
    by_p = 2 * bracket / ((w1 - w2) * (p + r).sum() + 2 * n * w2) ** 2
    torch.testing.assert_close(logits.grad[0, 1].flatten(), by_p * p * (1 - p))


@pytest.mark.parametrize(
    ("reference_voxels", "predicted", "expected"),
    [
        # No foreground and all predicted as foreground: nothing overlaps.
        (0, "all", 1.0),
        # w_0 / w_1 = (20000 / 864736)² = 5.349e-4; 1 − 2 w·864736 / (20000 + w (864736 + 884736)) = 0.9558
        (20_000, "none", 0.956),
        # w_0 / w_1 = (100000 / 784736)² = 0.016239; 1 − 2 w·784736 / (100000 + w (784736 + 884736)) = 0.7995
        (100_000, "none", 0.799),
    ],
)
def test_values_that_a_smoothing_constant_gets_wrong(reference_voxels, predicted, expected):
    labels = torch.zeros(1, 1, 96, 96, 96, dtype=torch.uint8)
    labels.view(-1)[:reference_voxels] = 1
    sign = 1.0 if predicted == "all" else -1.0
    logits = torch.stack((torch.full((1, 96, 96, 96), -20.0 * sign), torch.full((1, 96, 96, 96), 20.0 * sign)), 1)
    assert GeneralizedDiceLoss()(logits, labels).item() == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("side", [8, 32, 256])
@pytest.mark.parametrize("volume", [1, 100, 10_000, 10_000_000])
@pytest.mark.parametrize(("weighting", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
def test_no_constant_shows_at_any_volume(side, volume, weighting, power):
    if volume >= side**3:
        volume = side**3 - 1
    # Sums as a prediction would leave them that finds 70 % of the structure and twice its volume beside it.
    n, v = float(side**3), float(volume)
    false = min(2 * v, n - v)
    found = 0.7 * v

    def pair(background, foreground):
        return torch.tensor([[background, foreground]], dtype=torch.float64)

    zero = pair(0, 0)
    table = SumTable(
        pair(n, n), pair(n - found - false, found + false), pair(n - v, v), pair(n - v - false, found), *[zero] * 5
    )
    expected = printed_gdl(table, table.reference**-power)
    got = GeneralizedDiceLoss(weighting=weighting).cost(table)
    assert got.item() == pytest.approx(expected.item(), rel=1e-9)


def test_one_voxel_in_two_million_through_float32_logits(either_path):
    labels = torch.zeros(1, 1, 128, 128, 128, dtype=torch.uint8)
    labels[0, 0, 64, 64, 64] = 1
    logits = torch.zeros(1, 2, 128, 128, 128)
    logits[:, 0] = 9.0
    p = torch.sigmoid(torch.tensor(-9.0, dtype=torch.float64))
    n, w = 128**3, (1 / (128**3 - 1)) ** 2
    overlap = p + w * (1 - p) * (n - 1)
    expected = 1 - 2 * overlap / (1 + n * p + w * (n - 1 + n * (1 - p)))
    # 1 − 9e-7 in float32: the sums' error of 3e-5 (`sum_bound` of a chunk) is below the rounding of the difference.
    assert 1 - expected > 4 * unit_roundoff(torch.float32), "else the overlap would not show"
    assert GeneralizedDiceLoss()(logits, labels).item() == pytest.approx(
        expected.item(), abs=2 * unit_roundoff(torch.float32)
    )


@pytest.mark.parametrize("include_background", [True, False])
def test_false_positives_without_reference_cost_their_share_and_are_removed(printed, include_background):
    labels = torch.zeros(1, 1, 4, 4, 4)
    prediction = labels.clone()
    prediction.view(-1)[:16] = 1  # 16 of 64 voxels
    logits = printed.certain(prediction, 2, sharpness=3.0).requires_grad_()
    value = GeneralizedDiceLoss(include_background=include_background)(logits, labels)
    # 1 − 2·P_0 / (P_0 + 64 + P_1) with P_0 + P_1 = 64 is P_1 / 64.
    high, low = torch.sigmoid(torch.tensor([6.0, -6.0], dtype=torch.float64))
    assert value.item() == pytest.approx(((16 * high + 48 * low) / 64).item())
    value.backward()
    assert (logits.grad[:, 1] > 0).all()
    assert (logits.grad[:, 0] < 0).all()


def test_a_class_that_is_absent_takes_the_largest_weight_present():
    # Volumes 90 and 10 and none: weights (1/9)², 1, 1. 10 voxels claimed for class 2 from class 0.
    reference = torch.tensor([[90.0, 10.0, 0.0]], dtype=torch.float64)
    predicted = torch.tensor([[80.0, 10.0, 10.0]], dtype=torch.float64)
    both = torch.tensor([[80.0, 10.0, 0.0]], dtype=torch.float64)
    zero = torch.zeros_like(both)
    table = SumTable(torch.full_like(both, 100.0), predicted, reference, both, zero, zero, zero, zero, zero)
    expected = 1 - 2 * (80 / 81 + 10) / (170 / 81 + 20 + 10)
    assert GeneralizedDiceLoss().cost(table).item() == pytest.approx(expected)


@pytest.mark.parametrize("batch", [False, True])
def test_monai_agrees_where_its_constant_is_small(printed, batch):
    monai_losses = pytest.importorskip("monai.losses")
    logits, labels, _ = printed.example((2, 3, 4, 4, 4))
    for weighting in ("square", "simple", "uniform"):
        peer = monai_losses.GeneralizedDiceLoss(
            softmax=True, to_onehot_y=True, w_type=weighting, smooth_nr=0.0, smooth_dr=0.0, batch=batch
        )
        mine = GeneralizedDiceLoss(weighting=weighting, batch=batch)
        torch.testing.assert_close(mine(logits, labels), peer(logits, labels))


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting='cube' is unknown; expected one of square, simple, uniform"):
        GeneralizedDiceLoss(weighting="cube")


def test_a_patch_without_foreground_costs_more_beside_one_with_it() -> None:
    """Two patches of N = 1000 voxels, sure of themselves: one right about its v = 10 voxels, one that claims k = 10
    where there are none. Alone, each class of the second has the weight 1: k / N = 0.01, the share claimed.

    Together the weights are 1 for the structure and w = (v / (2N − v))² = 2.5e-5 for the background, whose overlap is
    2N − v − k = 1980 and whose sum is 4N − 2v − k = 3970: 1 − 2 (v + 1980 w) / (2v + k + 3970 w), 1/3 but for w.
    """
    labels = torch.zeros(2, 1, 1000, dtype=torch.uint8)
    labels[0, 0, :10] = 1
    called = labels.clone()
    called[1, 0, 500:510] = 1
    logits = torch.cat([100.0 * (1 - called), 100.0 * called], 1).double()
    w = (10 / 1990) ** 2
    expected = 1 - 2 * (10 + w * 1980) / (30 + w * 3970)
    together = GeneralizedDiceLoss(batch=True)(logits, labels).item()
    alone = GeneralizedDiceLoss(batch=True)(logits[1:], labels[1:]).item()
    assert together == pytest.approx(expected, rel=1e-9) and alone == pytest.approx(0.01, rel=1e-9)
