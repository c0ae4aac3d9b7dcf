"""Augmentation and counting of batches that lie on the device: nothing is waited for."""

from __future__ import annotations

import numpy as np
import torch

from rarevox.pipeline.training.draws import patch_counts
from rarevox.pipeline.training.draws.patch_counts import PatchCounts
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms import (
    BatchAffine,
    BatchCompose,
    BatchDropChannels,
    BatchFlip,
    BatchGaussianNoise,
    BatchScaleIntensity,
    BatchShiftIntensity,
    RandForegroundPatchd,
)
from rarevox.transforms.sampling.foreground_index import ForegroundIndex

CUDA = torch.device("cuda", 0)


def batch(size=96):
    labels = torch.zeros(2, 1, size, size, size, dtype=torch.uint8, device=CUDA)
    return {"image": torch.empty(2, 1, size, size, size, device=CUDA), "label": labels}


def test_augmentation_on_the_device_sends_numbers_alone_and_waits_for_nothing(ledger):
    transform = BatchCompose(
        [
            BatchFlip(["image", "label"], axes=(0, 1, 2), prob=1.0),
            BatchAffine("image", rotate=(0.3, 0.3, 0.3), scale=(0.2, 0.2, 0.2), prob=1.0),
            BatchScaleIntensity("image", 0.1, prob=1.0),
            BatchShiftIntensity("image", 0.1, prob=1.0),
        ]
    )
    transform(batch(), [np.random.default_rng(n) for n in range(2)])
    assert not ledger.waits and not ledger.pageable, ledger.report()
    # Rows for each axis and volume, rows and matrices of the affine map, a column for scale and one for shift.
    assert dict(ledger.pinned) == {"transforms/batches/intensity.py:sent": 10}, ledger.report()


def test_patches_of_cases_on_the_device_are_cut_there_and_nothing_is_waited_for(ledger):
    labels = np.zeros((64, 60, 56), np.uint8)
    labels[30:34, 20:25, 40:42] = 1
    case = {
        "image": torch.empty(2, *labels.shape, dtype=torch.float16, device=CUDA),
        "label": torch.zeros(1, *labels.shape, dtype=torch.uint8, device=CUDA),
        "foreground": ForegroundIndex.of(labels),
    }
    change = BatchCompose([BatchFlip(["image", "label"], axes=(0,), prob=1.0), BatchGaussianNoise("image", prob=1.0)])
    dropped = BatchDropChannels("image", prob=0.9, channels=["t1", "t2"], before=change)
    patch = RandForegroundPatchd(["image", "label"], (48, 48, 48))
    dataset = PatchDataset([case] * 3, patch=patch, batch_transform=dropped)
    assert dataset.on_device
    ledger.clear()
    batch = dataset.batch([0, 1])
    assert batch["image"].shape == (2, 2, 48, 48, 48) and batch["image"].dtype == torch.float32
    assert batch["image"].device == batch["label"].device == CUDA
    assert not ledger.waits and not ledger.pageable, ledger.report()
    assert dict(ledger.pinned) == {"transforms/batches/intensity.py:sent": 2}, ledger.report()  # which are mirrored
    # A patch is one copy of each volume; beside it zeros where it reaches beyond, two for mirrors and noise, a channel.
    assert ledger.total <= 2 * (2 * 2 + 4) + 4, ledger.report()


def test_patches_on_the_device_are_counted_there_and_read_many_at_a_time(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(patch_counts, "UNREAD", 3)
    counts = PatchCounts(tmp_path, structures=["one", "two"], margin=(0, 0, 0), cases=1)
    for step, waits in ((1, 0), (2, 0), (3, 1)):
        ledger.clear()
        try:
            counts.count(batch(16))
        except RuntimeError:  # fake tensors have no numbers to read
            assert step == 3
        assert ledger.waits.total() == waits, ledger.report()
        assert not ledger.pageable
