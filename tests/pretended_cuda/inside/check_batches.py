"""Augmentation and counting of batches that lie on the device: nothing is waited for."""

from __future__ import annotations

import numpy as np
import torch

from rarevox.pipeline.training.draws import patch_counts
from rarevox.pipeline.training.draws.patch_counts import PatchCounts
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms import (
    BatchAdjustContrast,
    BatchAffine,
    BatchCompose,
    BatchDropChannels,
    BatchFlip,
    BatchGaussianNoise,
    BatchGaussianSmooth,
    BatchPlantLesions,
    BatchScaleIntensity,
    BatchShiftIntensity,
    LesionLibrary,
    RandForegroundPatchd,
    RandPlantLesionsd,
)
from rarevox.transforms.sampling.foreground_index import ForegroundIndex
from tests.transforms.planting.scans import scan

CUDA = torch.device("cuda", 0)
LIBRARY = LesionLibrary([scan(0)])
assert len(LIBRARY.donors) == 3 and LIBRARY.limits.shape == (2, 2)  # read now, while tensors hold numbers


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
            BatchAdjustContrast("image", prob=1.0),
            BatchGaussianSmooth("image", prob=1.0),
        ]
    )
    transform(batch(), [np.random.default_rng(n) for n in range(2)])
    assert not ledger.waits and not ledger.pageable, ledger.report()
    # Rows for each axis and volume, rows and matrices of the affine map, a column for scale and one for shift;
    # rows and exponents of the contrast, rows and three kernels of the blur.
    assert dict(ledger.pinned) == {"transforms/batches/intensity.py:sent": 16}, ledger.report()


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


def test_lesions_are_planted_into_a_batch_on_the_device_and_nothing_is_waited_for(ledger):
    """Donors and the places that are tried are sent; which is taken, and whether any, the device alone knows."""
    labels = np.zeros((64, 60, 56), np.uint8)
    labels[30:34, 20:25, 40:42] = 1
    case = {
        "image": torch.empty(2, *labels.shape, device=CUDA),
        "label": torch.zeros(1, *labels.shape, dtype=torch.uint8, device=CUDA),
        "mask": torch.ones(1, *labels.shape, dtype=torch.uint8, device=CUDA),
        "foreground": ForegroundIndex.of(labels),
    }
    patch = RandForegroundPatchd(["image", "label"], (48, 48, 48))
    planting = RandPlantLesionsd("image", LIBRARY, prob=1.0, count=(3, 3), into="foreground")
    launched = []
    for size in (2, 8):
        dataset = PatchDataset([case] * 3, patch=patch, planting=BatchPlantLesions(planting))
        ledger.clear()
        batch = dataset.batch(range(size))
        assert batch["planted"].device == CUDA and batch["planted"].shape == (size, 2)
        assert batch["planted_lesions"].shape == (size, 3, 2) and "mask" not in batch
        assert not ledger.waits and not ledger.pageable, ledger.report()
        launched.append(ledger.total)
    # A lesion for every patch at once: six more patches are cut, taken and put back, three lesions noted for each.
    assert (launched[1] - launched[0]) / 6 < 20, launched


def test_planting_without_masks_waits_for_nothing_either(ledger):
    planting = RandPlantLesionsd("image", LIBRARY, prob=1.0, into="background")
    patches = batch(48)
    patches["image"] = patches["image"].repeat(1, 2, 1, 1, 1)
    ledger.clear()
    BatchPlantLesions(planting)(patches, [np.random.default_rng(n) for n in range(2)])
    assert ledger.total and not ledger.waits and not ledger.pageable, ledger.report()


def test_what_was_planted_on_the_device_is_read_with_the_rest(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(patch_counts, "UNREAD", 9)
    counts = PatchCounts(tmp_path, structures=["one", "two"], margin=(0, 0, 0), cases=1)
    planted = torch.zeros(2, 3, 3, dtype=torch.int64, device=CUDA)
    ledger.clear()
    counts.count(batch(16) | {"planted_lesions": planted, "planted": planted[:, 0, :2]})
    assert not ledger.waits and not ledger.pageable, ledger.report()


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
