"""The cross-entropy of every voxel against PyTorch's."""

from __future__ import annotations

import torch
from torch.nn import functional

from rarevox.losses.sums import chunks
from rarevox.losses.sums.voxel_entropy import voxel_cross_entropy


def test_softmax(printed, monkeypatch):
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 50)
    logits, labels, weight = printed.example()
    entropy, counted = voxel_cross_entropy(logits, labels, weight, sigmoid=False, ignore_index=1)
    expected = functional.cross_entropy(logits, labels[:, 0], reduction="none").flatten(1)
    kept = labels.flatten(2) != 1
    torch.testing.assert_close(entropy[kept], expected[:, None][kept], rtol=1e-12, atol=0)
    assert torch.equal(counted, weight.flatten(2) * kept)


def test_sigmoid(printed):
    logits, _, _ = printed.example((2, 3, 4, 5))
    labels = (torch.arange(logits.numel()).view(logits.shape) % 3 == 0).long()
    entropy, counted = voxel_cross_entropy(logits, labels, None, sigmoid=True, ignore_index=None)
    expected = functional.binary_cross_entropy_with_logits(logits, labels.double(), reduction="none").flatten(2)
    torch.testing.assert_close(entropy, expected, rtol=1e-12, atol=1e-15)
    assert (counted == 1).all()
