"""Augmentation and counting of batches that lie on the device: nothing is waited for."""

from __future__ import annotations

import numpy as np
import torch

from rarevox.pipeline.training.draws import patch_counts
from rarevox.pipeline.training.draws.patch_counts import PatchCounts
from rarevox.transforms import BatchAffine, BatchCompose, BatchFlip, BatchScaleIntensity, BatchShiftIntensity

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
