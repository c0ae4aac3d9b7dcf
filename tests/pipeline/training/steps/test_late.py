"""Steps that are read late are the steps that are read at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.losses.sums.checks import Extremes, Unchecked, check_values
from rarevox.pipeline.training.steps import muon
from rarevox.pipeline.training.steps.late import LateLoss, is_known, is_well, judged, numbers_of, undoable
from rarevox.pipeline.training.steps.muon import Muon
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.test_step import CPU32, batch, engine_for


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon counts its steps in a tensor, as on a GPU, so that the device can leave one out."""
    monkeypatch.setattr(muon, "is_on_gpu", lambda tensor: True)


def network_of(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    norm = torch.nn.BatchNorm3d(3)
    return torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), norm, torch.nn.ReLU(), torch.nn.Conv3d(3, 2, 1))


def trained(late: bool, bad: set[int], *, steps: int = 6, patience: int = 20) -> tuple[Any, TrainingStep, list[Any]]:
    """A training whose loss is not a number in the steps ``bad``; the engine, the step and its outputs."""
    network, loss = network_of(), GeneralizedDiceCELoss()

    def of_step(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = loss(logits, labels)
        return value * float("nan") if engine.state.iteration in bad else value

    engine = engine_for(network, of_step)
    engine.optimizer = Muon(network.parameters(), lr=0.05)
    step = TrainingStep(CPU32, patience=patience)
    step.late = late
    found = []
    for iteration in range(1, steps + 1):
        engine.state.iteration = iteration
        found.append(step(engine, batch())["loss"])
    return engine, step, found


@pytest.mark.parametrize("bad", [set(), {3}, {1}, {2, 3}, {6}])
def test_a_training_is_the_same_read_late(as_on_a_gpu, bad) -> None:
    (early, one, at_once), (later, other, found) = trained(False, bad), trained(True, bad)
    assert all(isinstance(value, float) for value in at_once)
    assert isinstance(found[-1], LateLoss) and not found[-1].known
    other.settle()
    assert [float(value) for value in found] == pytest.approx(at_once, nan_ok=True, rel=0, abs=0)
    assert {number for number, value in enumerate(found, start=1) if math.isnan(float(value))} == bad
    assert one.skipped == other.skipped == len(bad)
    states = [{**engine.network.state_dict()} for engine in (early, later)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for first, second in zip(early.optimizer.state.values(), later.optimizer.state.values(), strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)
    counts = {int(state["step"]) for state in later.optimizer.state.values() if "step" in state}
    assert counts == {6 - len(bad)}


def test_the_first_step_is_read_at_once_and_others_when_the_next_is_taken(as_on_a_gpu) -> None:
    _, _, found = trained(True, set(), steps=3)
    assert [is_known(value) for value in found] == [True, True, False]
    assert isinstance(found[0], float) and isinstance(found[1], LateLoss)
    assert f"{found[2]:.3f}" == f"{float(found[2]):.3f}" and is_known(found[2])


def test_a_run_of_skipped_steps_ends_one_step_later_or_with_the_checkpoint(as_on_a_gpu) -> None:
    with pytest.raises(FloatingPointError, match=r"3 steps in a row \(to 5\)"):
        trained(True, {3, 4, 5}, patience=3)
    _, step, _ = trained(True, {3, 4, 5}, steps=5, patience=3)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row \(to 5\)"):
        step.state_dict()
    assert step.state_dict()["skipped"] == 3  # said once


def test_what_a_loss_refuses_changes_nothing_and_is_said_when_it_is_read(as_on_a_gpu) -> None:
    network = network_of()
    high = 1.0

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        check_values(torch.tensor([0.5, 0.0, high, 0.0, 0.0, 0.0]), 2)
        return GeneralizedDiceCELoss()(logits, labels)

    engine = engine_for(network, loss)
    engine.optimizer = Muon(network.parameters())
    step = TrainingStep(CPU32)
    step.late = True
    step(engine, batch())
    before = [tensor.clone() for tensor in network.state_dict().values()]
    high = 2.0
    output = step(engine, batch())["loss"]
    assert all(torch.equal(one, old) for one, old in zip(network.state_dict().values(), before, strict=True))
    with pytest.raises(ValueError, match="labels reach from 0 to 2"):
        step.settle()
    assert math.isnan(float(output))


SEEN = Extremes(logit_sum=3.0, label_low=0.0, label_high=2.0, label_fraction=0.0, weight_low=0.0, weight_sum=0.0)
FINDINGS = {
    "well": ({}, {}, True),
    "nothing annotated": ({"label_low": math.inf, "label_high": -math.inf}, {}, True),
    "loss": ({}, {"loss": math.nan}, False),
    "infinite loss": ({}, {"loss": -math.inf}, False),
    "gradients": ({}, {"norm": math.inf}, False),
    "logits": ({"logit_sum": math.nan}, {}, False),
    "label too high": ({"label_high": 3.0}, {}, None),
    "label too low": ({"label_low": -1.0}, {}, None),
    "label between": ({"label_fraction": 0.5}, {}, None),
    "no label": ({"label_fraction": math.nan}, {}, None),
    "weight": ({"weight_low": -0.5}, {}, None),
    "sum of weights": ({"weight_sum": math.inf}, {}, None),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_the_device_decides_as_the_host_does(name) -> None:
    """None: the host raises, and the device does not take the step."""
    seen, numbers, expected = FINDINGS[name]
    good = Unchecked(torch.tensor(SEEN), 3)
    unchecked = [good, Unchecked(torch.tensor(SEEN._replace(**seen)), 3)]
    row = numbers_of(torch.tensor(numbers.get("loss", 0.5)), torch.tensor(numbers.get("norm", 1.0)), unchecked)
    assert bool(is_well(row, unchecked)) is bool(expected)
    if expected is None:
        with pytest.raises(ValueError):
            judged(row.tolist(), unchecked)
    else:
        assert judged(row.tolist(), unchecked)[1] is expected


def test_what_counts_on_the_host_cannot_be_taken_back() -> None:
    for make, known in (
        (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), True),
        (lambda parameters: torch.optim.SGD(parameters, lr=0.1), False),  # no state: nothing says that it has begun
        (Muon, False),  # on a CPU
    ):
        weight = torch.nn.Parameter(torch.ones(3))
        other = torch.nn.Parameter(torch.ones(3))  # never has a gradient
        optimizer = make([weight, other])
        weight.grad = torch.ones(3)
        assert undoable(optimizer) is None
        optimizer.step()
        found = undoable(optimizer)
        assert (found is not None) is known
        if found is not None:
            assert any(one is weight for one in found) and len(found) == 2
