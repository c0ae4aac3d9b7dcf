"""Counts of voxels in label maps."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import confusion, hard_sums


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 4, (2, 1, 5, 6, 7), generator=generator) for _ in range(2)]


def test_counts_by_hand():
    prediction = torch.tensor([[[0, 1, 2, 2]], [[0, 0, 0, 0]]])
    labels = torch.tensor([[[0, 1, 1, 2]], [[0, 0, 1, 2]]])
    expected = [[[1, 0, 0], [0, 1, 1], [0, 0, 1]], [[2, 0, 0], [1, 0, 0], [1, 0, 0]]]
    assert confusion(prediction, labels, num_classes=3).tolist() == expected
    table = hard_sums(prediction, labels, num_classes=3)
    assert table.probability.tolist() == [[1, 1, 2], [4, 0, 0]]
    assert table.reference.tolist() == [[1, 2, 1], [2, 1, 1]]
    assert table.intersection.tolist() == [[1, 1, 1], [2, 0, 0]]
    assert table.voxels.tolist() == [[4, 4, 4], [4, 4, 4]]
    assert all(column.dtype == torch.int64 for column in table)


def test_every_count_voxel_by_voxel(maps):
    prediction, labels = maps
    counts = confusion(prediction, labels, num_classes=4)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                assert counts[b, i, j] == ((labels[b] == i) & (prediction[b] == j)).sum()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_any_type_and_the_maps_are_left_alone(maps, dtype):
    prediction, labels = (tensor.to(dtype) for tensor in maps)
    before = labels.clone()
    assert torch.equal(confusion(prediction, labels, num_classes=4), confusion(*maps, num_classes=4))
    assert torch.equal(labels, before)


def test_ignored_voxels_are_left_out(maps):
    prediction, labels = maps
    ignored = torch.where(labels == 3, 255, labels)
    counts = confusion(prediction, labels, num_classes=4)
    counts[:, 3] = 0
    assert torch.equal(confusion(prediction, ignored, num_classes=4, ignore_index=255), counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, r: (p[:1], r), "must both be"),
        (lambda p, r: (p[:0], r[:0]), "not empty"),
        (lambda p, r: (p[:, 0, 0, 0], r[:, 0, 0, 0]), "must both be"),
        (lambda p, r: (p + 1, r), "prediction reach from 1 to 4; 4 classes allow 0 to 3"),
        (lambda p, r: (p, r - 1), "labels reach from -1"),
        (lambda p, r: (p, r + 0.5), "labels hold values that are not whole"),
    ],
)
def test_bad_maps_are_refused(maps, change, message):
    with pytest.raises(ValueError, match=message):
        hard_sums(*change(*maps), num_classes=4)
