"""What was done to tensors is taken back, whatever it was."""

from __future__ import annotations

import pytest
import torch

from rarevox.pipeline.training.steps.undo import Undo


def tensors() -> list[torch.Tensor]:
    torch.manual_seed(0)
    kernel = torch.randn(2, 3, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    gaps = torch.randn(4, 6)[:, ::2]
    return [kernel, torch.randn(5, dtype=torch.float64), torch.tensor(3), gaps, torch.zeros(0), torch.tensor(0.5)]


def spoil(some: list[torch.Tensor]) -> None:
    for tensor in some:
        tensor.fill_(float("nan") if tensor.is_floating_point() else 7)


@pytest.mark.parametrize("well", [None, True, False])
def test_only_what_went_well_stays(well) -> None:
    some, undo = tensors(), Undo()
    before = [tensor.clone() for tensor in some]
    for _ in range(2):  # the copies serve again
        undo.keep(some)
        spoil(some)
        undo.restore() if well is None else undo.restore_unless(torch.tensor(well))
        for tensor, old in zip(some, before, strict=True):
            assert torch.equal(tensor, old) != bool(well) or not tensor.numel()
        for tensor, old in zip(some, before, strict=True):
            tensor.copy_(old)


def test_what_is_kept_is_what_is_there_now() -> None:
    some, undo = tensors(), Undo()
    undo.keep(some)
    some[0].add_(1)
    other = torch.ones(2)
    undo.keep([some[0], other])
    expected = some[0].clone()
    spoil([some[0], other])
    undo.restore_unless(torch.tensor(False))
    assert torch.equal(some[0], expected) and torch.equal(other, torch.ones(2))


def test_parameters_that_are_trained_are_set_back_too() -> None:
    weight, undo = torch.nn.Parameter(torch.ones(3)), Undo()
    undo.keep([weight])
    with torch.no_grad():
        weight.mul_(2)
    undo.restore_unless(torch.tensor(False))
    assert weight.tolist() == [1.0] * 3 and weight.requires_grad
