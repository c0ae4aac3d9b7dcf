"""What every step saw: counts by hand and against the hard table, and a training that it does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.losses.hard import hard_sums
from rarevox.pipeline.training.record.batch_record import FILE, BatchRecord, arrays_of, batch_counts, read_record
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL


@pytest.mark.parametrize("ignore", [None, 255])
def test_counts_are_those_of_the_hard_table(ignore: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, 7, generator=generator)
    labels = torch.randint(0, 4, (3, 1, 5, 6, 7), generator=generator).to(torch.uint8)
    if ignore is not None:
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = ignore
    table = hard_sums(logits.argmax(1, keepdim=True), labels, num_classes=4, ignore_index=ignore)
    counts = batch_counts(logits, labels, ignore)
    assert torch.equal(counts[:, 0], table.voxels[:, 0])
    for column, part in enumerate((table.probability, table.reference, table.intersection), start=1):
        assert torch.equal(counts[:, column::3], part[:, 1:])


@pytest.mark.parametrize("ignore", [None, 255])
def test_counts_of_nested_regions_are_those_of_each_mask(ignore: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 5, 6, 7, generator=generator)
    labels = torch.randint(0, 3, (3, 1, 5, 6, 7), generator=generator).to(torch.uint8)
    counted = torch.rand(labels.shape, generator=generator) > (0.3 if ignore else -1)
    labels[~counted] = 255
    counts = batch_counts(logits, labels, ignore, nested=True)
    found = torch.stack([logits[:, 0] > 0, (logits > 0).all(1)], 1) & counted
    wanted = torch.cat([labels >= 1, labels >= 2], 1) & counted
    columns = [one.flatten(2).sum(2) for one in (found, wanted, found & wanted)]
    assert torch.equal(counts[:, 1:], torch.stack(columns, 2).flatten(1))
    shares = arrays_of(counts[None].numpy(), np.zeros(1), 2, nested=True)["foreground_share"][0]
    assert shares == pytest.approx((wanted[:, 0].flatten(1).sum(1) / counted.flatten(1).sum(1)).numpy())


def test_dice_and_shares_by_hand() -> None:
    """Two patches of 10 voxels: found 3 + 1, wanted 2 + 2, both 2 + 1, so Dice 2·3 / (4 + 4); shares 0.2 and 0.2."""
    counts = np.array([[[10, 3, 2, 2], [10, 1, 2, 1]], [[10, 0, 0, 0], [8, 0, 0, 0]], [[10, 1, 1, 1], [10, 1, 1, 1]]])
    found = arrays_of(counts, np.array([0.5, 0.25, np.nan]), 1)
    assert found["iteration"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found["dice"], [[0.75], [np.nan], [np.nan]])  # in neither map; a skipped step
    np.testing.assert_array_equal(found["foreground_share"], [[0.2, 0.2], [0, 0], [0.1, 0.1]])


def test_no_step_no_figures() -> None:
    found = BatchRecord("run", structures=["lesion"], keep=True).arrays()
    assert found["dice"].shape == (0, 1) and found["loss"].shape == (0,)


def test_a_training_is_the_same_with_it_and_resumed_the_record_goes_on(dataset_dir: Path, tmp_path: Path) -> None:
    quick = (*SMALL, "validation_cases=0", "log#tensorboard=false")
    assert train(dataset_dir, tmp_path / "without", settings=quick, iterations=6, device="cpu") == 0
    kept = (*quick, "batch_record#keep=true")
    assert train(dataset_dir, tmp_path / "with", settings=kept, iterations=6, device="cpu") == 0
    weights = [torch.load(tmp_path / name / "models" / "model.pt") for name in ("without", "with")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert read_record(tmp_path / "without") is None
    whole = read_record(tmp_path / "with")
    assert whole is not None and whole["dice"].shape == (6, 2) and whole["foreground_share"].shape == (6, 2)
    # A schedule of 6 steps that is cut at 3 and resumed.
    constant = (*kept, "schedule#power=0", "schedule#warmup=0")
    assert train(dataset_dir, tmp_path / "half", settings=constant, iterations=3, device="cpu") == 0
    assert train(dataset_dir, tmp_path / "half", iterations=6, device="cpu", resume=True) == 0
    assert train(dataset_dir, tmp_path / "once", settings=constant, iterations=6, device="cpu") == 0
    half, once = read_record(tmp_path / "half"), read_record(tmp_path / "once")
    assert half is not None and once is not None
    for name, array in once.items():
        np.testing.assert_array_equal(half[name], array)
    whole_file = (tmp_path / "once" / FILE).read_bytes()
    for length in (0, 20, len(whole_file) // 2, len(whole_file) - 1):
        (tmp_path / "once" / FILE).write_bytes(whole_file[:length])
        assert read_record(tmp_path / "once") is None
