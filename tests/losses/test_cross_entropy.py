"""Cross-entropy with class weights and label smoothing, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rarevox.losses import CrossEntropyLoss


@pytest.mark.parametrize(
    ("options", "peer_options"),
    [
        ({}, {}),
        ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
        ({"label_smoothing": 1.0}, {"label_smoothing": 1.0}),
        ({"class_weights": [0.1, 2, 0]}, {"weight": torch.tensor([0.1, 2, 0], dtype=torch.float64)}),
        ({"ignore_index": 1}, {"ignore_index": 1}),
        ({"ignore_index": 1, "label_smoothing": 0.3}, {"ignore_index": 1, "label_smoothing": 0.3}),
    ],
)
def test_torch_agrees(printed, options, peer_options):
    logits, labels, _ = printed.example()
    expected = functional.cross_entropy(logits, labels[:, 0], **peer_options)
    torch.testing.assert_close(CrossEntropyLoss(**options)(logits, labels), expected)


def test_voxel_weights(printed):
    logits, labels, weight = printed.example()
    each = functional.cross_entropy(logits, labels[:, 0], reduction="none")
    expected = (each * weight[:, 0]).sum() / weight.sum()
    torch.testing.assert_close(CrossEntropyLoss()(logits, labels, weight), expected)


def test_binary_logits_agree_with_torch(printed):
    logits, _, _ = printed.example((2, 3, 4, 5))
    labels = (torch.arange(logits.numel()).view(logits.shape) % 3 == 0).double()
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(CrossEntropyLoss(sigmoid=True)(logits, labels), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.1}, "label_smoothing=1.1 is out of range; expected a number from 0 to 1"),
        ({"class_weights": [1, -1]}, "none negative"),
        ({"class_weights": [0, 0]}, "at least one above 0"),
        ({"class_weights": [1, float("nan")]}, "must be finite"),
        ({"class_weights": [1, 2], "label_smoothing": 0.1}, "cannot be combined"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropyLoss(**options)


def test_class_weights_must_be_one_a_class(printed):
    logits, labels, _ = printed.example()
    with pytest.raises(ValueError, match="class_weights has 2 numbers; expected 3"):
        CrossEntropyLoss(class_weights=[1, 2])(logits, labels)
