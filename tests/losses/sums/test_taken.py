"""Which way a loss is computed, as a training's log says it."""

from __future__ import annotations

import pytest
import torch

from rarevox import losses
from rarevox.losses.sums.cpu import overlap as cpu
from rarevox.losses.sums.taken import take_down, ways_taken

needs_kernels = pytest.mark.skipif(not cpu.are_there(), reason="needs Numba")


def way(loss, logits, labels):
    with ways_taken() as ways:
        loss(logits, labels)
    return ways


@needs_kernels
@pytest.mark.parametrize(
    ("loss", "classes", "said"),
    [
        (losses.GeneralizedDiceCELoss(), 3, ["compiled kernels"]),
        (losses.DiceCELoss(), 65, ["PyTorch's operations (65 classes, and kernels take 64)"]),
        (losses.DiceFocalLoss(), 3, ["PyTorch's operations (no kernel makes the focal term)"]),
        (losses.CrossEntropyLoss(label_smoothing=0.1), 3, ["PyTorch's operations (no kernel smooths labels)"]),
        (losses.DiceTopKLoss(), 3, ["PyTorch's operations (no kernel for voxels chosen by their loss)"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_way_and_the_reason(loss, classes, said):
    logits = torch.zeros(1, classes, 4, 4, 5)
    assert way(loss, logits, torch.zeros(1, 1, 4, 4, 5, dtype=torch.uint8)) == said


def test_regions_of_components_have_no_kernel():
    labels = torch.zeros(1, 2, 4, 4, dtype=torch.int32)
    (said,) = way(losses.ComponentDiceCELoss(), torch.zeros(1, 2, 4, 4), labels)
    assert "regions of components" in said


def test_a_type_without_a_kernel_is_named():
    (said,) = way(losses.DiceLoss(), torch.zeros(1, 2, 4, 4).double(), torch.zeros(1, 1, 4, 4))
    assert said == "PyTorch's operations (no kernel for float64 on cpu)" or "Numba" in said


def test_without_kernels_that_is_said(monkeypatch):
    monkeypatch.setattr(cpu, "are_there", lambda: False)
    (said,) = way(losses.DiceLoss(), torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    assert "Numba is not installed" in said


def test_nobody_asks():
    take_down("a way")
    with ways_taken() as ways:
        pass
    assert ways == []
