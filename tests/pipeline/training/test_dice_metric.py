"""The Dice of validation: of structures, and of nested regions from class indices and from logits."""

from __future__ import annotations

import pytest
import torch
from monai.utils.enums import CommonKeys as Keys

from rarevox.pipeline.training.dice_metric import HardDice


def _of(metric: HardDice, predicted: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    metric.reset()
    metric.update((predicted, labels))
    return metric.per_structure()


def test_structures_and_regions_by_hand() -> None:
    """Reference 0 1 2 2, predicted 0 2 2 1: class 1 shares none of 1 + 1, class 2 one of 2 + 2; region 1 shares all."""
    labels, predicted = torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 2, 2, 1]]])
    assert _of(HardDice(["a", "b"]), predicted, labels) == {"a": 0.0, "b": 0.5}
    regions = HardDice(["a", "b"], regions={"whole": [1, 2], "core": [2]})
    assert _of(regions, predicted, labels) == {"whole": 1.0, "core": 0.5}
    assert regions.compute() == pytest.approx(0.75)
    logits = torch.tensor([[[-1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, -1.0]]])  # the first voxel is in no region
    assert _of(regions, logits, labels) == {"whole": 1.0, "core": 0.5}


def test_voxels_that_nobody_annotated_are_left_out() -> None:
    labels, predicted = torch.tensor([[[0, 1, 255, 255]]]), torch.tensor([[[0, 1, 2, 2]]])
    regions = HardDice(["a", "b"], ignore_index=255, regions=["whole", "core"])
    assert _of(regions, predicted, labels) == {"whole": 1.0, "core": 1.0}


def test_the_output_of_an_engine_is_taken_apart() -> None:
    output = {Keys.PRED: torch.ones(1, 1, 2, dtype=torch.uint8), Keys.LABEL: torch.ones(1, 1, 2)}
    assert HardDice(["a"])._output_transform(output)[0] is output[Keys.PRED]
