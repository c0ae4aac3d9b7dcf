"""The loss that lets each component count alike."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rarevox.losses import ComponentDiceCELoss
from rarevox.transforms import component_regions


def two_lesions():
    """A lesion of one voxel at one end of a line of 12 and one of four at the other; their regions meet at 4 | 5."""
    labels = torch.zeros(1, 12, dtype=torch.int64)
    labels[0, 0] = 1
    labels[0, 8:] = 1
    return labels


def test_small_and_large_lesions_count_alike(printed):
    labels = two_lesions()
    both = torch.cat((labels, component_regions(labels, num_classes=2)))[None]
    loss = ComponentDiceCELoss()
    for missed in (slice(0, 1), slice(8, 12)):
        prediction = labels[None].clone()
        prediction[..., missed] = 0
        terms = loss.terms(printed.certain(prediction, 2), both)
        assert terms["component_dice"].item() == pytest.approx(0.5)


def test_false_voxels_count_against_the_lesion_beside_them(printed):
    labels = two_lesions()
    both = torch.cat((labels, component_regions(labels, num_classes=2)))[None]
    prediction = labels[None].clone()
    prediction[..., 1] = 1  # region 1: 1 − 2·1/(2 + 1) = 1/3; region 2: 0
    value = ComponentDiceCELoss().terms(printed.certain(prediction, 2), both)["component_dice"]
    assert value.item() == pytest.approx(1 / 6)


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_against_full_size_tensors(printed, monkeypatch, weighted):
    monkeypatch.setattr("rarevox.losses.sums.chunks.CPU_PIECE_ELEMENTS", 50)
    logits, labels, weight = printed.example()
    weight = weight if weighted else torch.ones_like(weight)
    regions = torch.randint(0, 4, (2, 2, 4, 5, 6), generator=torch.Generator().manual_seed(3))
    p, r = torch.softmax(logits, 1), printed.one_hot(labels, 3)
    samples = []
    for b in range(2):
        classes = []
        for c in (1, 2):
            costs = []
            for k in range(4):
                inside = weight[b, 0] * (regions[b, c - 1] == k)
                overlap = (inside * p[b, c] * r[b, c]).sum()
                costs.append(1 - 2 * overlap / (inside * (p[b, c] + r[b, c])).sum())
            classes.append(torch.stack(costs).mean())
        samples.append(torch.stack(classes).mean())
    terms = ComponentDiceCELoss().terms(logits, torch.cat((labels, regions), 1), weight)
    torch.testing.assert_close(terms["component_dice"], torch.stack(samples).mean())
    each = functional.cross_entropy(logits, labels[:, 0], reduction="none")[:, None] * weight
    expected = (each.flatten(1).sum(1) / weight.flatten(1).sum(1)).mean()
    torch.testing.assert_close(terms["cross_entropy"], expected)


def test_one_region_is_the_dice_loss(printed):
    from rarevox.losses import DiceCELoss

    logits, labels, weight = printed.example()
    both = torch.cat((labels, torch.ones(2, 2, 4, 5, 6, dtype=torch.int64)), 1)
    expected = DiceCELoss(include_background=False)(logits, labels, weight)
    torch.testing.assert_close(ComponentDiceCELoss()(logits, both, weight), expected)


def test_bad_regions_are_refused(printed):
    logits, labels, _ = printed.example()
    with pytest.raises(ValueError, match="need 3 channels: the class indices, then the component regions"):
        ComponentDiceCELoss()(logits, labels)
    with pytest.raises(ValueError, match="regions reach down to -1"):
        ComponentDiceCELoss()(logits, torch.cat((labels, labels * 0 - 1, labels), 1))
    with pytest.raises(ValueError, match="not whole numbers"):
        ComponentDiceCELoss()(logits, torch.cat((labels, labels + 0.5, labels), 1))
    with pytest.raises(ValueError, match="need 4 channels"):
        ComponentDiceCELoss(sigmoid=True)(logits, torch.cat((labels, labels), 1))
