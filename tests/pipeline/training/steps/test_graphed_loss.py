"""Losses with gradients, and an optimiser's directions, by graphs are those without; a device's are in tests/gpu."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rarevox.losses import DiceCELoss, GeneralizedDiceCELoss
from rarevox.losses.sums.checks import checked_later
from rarevox.pipeline.training.steps import graphed_loss, recording
from rarevox.pipeline.training.steps.muon import Muon
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.python_graphs import Again, Recorder, network_of, trained
from tests.pipeline.training.steps.test_step import CPU32


class Counted(GeneralizedDiceCELoss):
    """Someone's own, that may depend on anything."""


@pytest.mark.parametrize(("loss", "by_graphs"), [(GeneralizedDiceCELoss, True), (DiceCELoss, True), (Counted, False)])
def test_a_training_whose_loss_and_directions_come_by_graphs_is_the_same(
    recorder: Recorder, again: Again, loss: Any, by_graphs: bool
) -> None:
    plain, losses = trained(TrainingStep(CPU32), 8, loss=loss())
    assert again.replays == 0
    step = TrainingStep(CPU32, cuda_graphs=True)
    state, found = trained(step, 8, loss=loss())
    assert found == losses
    # The passes from the second step on, the directions in it for the second time; the loss sees the logits of the
    # graphs in the second step, comes again in the third, and is captured there.
    assert again.replays == 7 + 6 * by_graphs
    assert all(torch.equal(state[key], plain[key]) for key in plain if "running" not in key)


def test_a_share_that_moves_is_seen(recorder: Recorder, again: Again) -> None:
    """What a graph knows of a loss is what it was when it was captured."""
    loss, logits, labels = DiceCELoss(), torch.randn(1, 2, 4, 4, 4, requires_grad=True), torch.ones(1, 1, 4, 4, 4)
    graphed_one = graphed_loss.GraphedLoss()
    for share in (0.5, 0.5, 0.5, 0.25, 0.125, 0.125, 0.125):
        loss.alpha = share
        logits.grad = None
        value = graphed_one(loss, logits, labels)
        value.backward()
        other = logits.detach().clone().requires_grad_()
        expected = loss(other, labels)
        expected.backward()
        assert value.item() == expected.item()
        assert logits.grad is not None and torch.equal(logits.grad, other.grad)
    assert graphed_one.held.captures == 2 and again.replays == 4


def test_what_a_graph_saw_is_looked_at_in_every_step() -> None:
    """Labels outside the classes are seen by the device alone; here a graph is said to have seen some."""
    captured = object.__new__(graphed_loss._CapturedLoss)
    captured.labels, captured.number, captured._replay = torch.zeros(1, 1, 2), 0, tuple
    captured.value, captured.gradient = torch.tensor(0.5), torch.ones(1, 3, 2)
    captured.seen, captured.classes = [torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 0.0])], [3]
    assert captured(torch.ones(1, 1, 2)) == 0.5 and captured.labels.eq(1).all()
    captured.seen[0][2] = 3.0
    with pytest.raises(ValueError, match="labels reach from 0 to 3"):
        captured(torch.ones(1, 1, 2))
    with checked_later() as waiting:
        captured(torch.ones(1, 1, 2))
    captured.seen[0][2] = 1.0  # the next step's, which must not change what is still to be read
    assert waiting[0].seen[2] == 3.0 and waiting[0].num_classes == 3


def test_a_loss_that_a_later_one_has_overwritten_has_no_way_back(again: Again) -> None:
    logits, labels = torch.randn(1, 2, 4, 4, 4, requires_grad=True), torch.ones(1, 1, 4, 4, 4)
    call, loss = graphed_loss.GraphedLoss(), GeneralizedDiceCELoss()
    values = [call(loss, logits, labels) for _ in range(4)]
    values[3].backward()
    with pytest.raises(RuntimeError, match="holds a later loss"):
        values[2].backward()


def test_a_loss_that_waits_for_the_device_goes_as_before(recorder, again, monkeypatch, capsys) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    for module in (recording, graphed_loss):
        monkeypatch.setattr(module, "recorded", refuse)
    plain, losses = trained(TrainingStep(CPU32))
    state, found = trained(TrainingStep(CPU32, cuda_graphs=True))
    assert found == losses
    assert all(torch.equal(state[key], plain[key]) for key in plain if "running" not in key)
    told = " ".join(capsys.readouterr().err.split())
    for what in ("the loss", "the optimiser"):
        assert told.count(f"{what} goes without a CUDA graph: operation not permitted") == 1


def test_kernels_of_other_sizes_are_captured_a_few_times(again: Again) -> None:
    twice = recording.Repeated(lambda tensors: [2 * one for one in tensors])
    for size in (1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5):
        assert [one.tolist() for one in twice([torch.full((size,), 1.5)])] == [[3.0] * size]
    assert twice.held.captures == recording.CAPTURES and again.replays == 2 + 1 + 1


def test_an_optimiser_is_copied_without_its_graphs(again: Again) -> None:
    network = network_of()
    optimizer = Muon(network.parameters())
    optimizer.graphs = True
    for _ in range(3):
        network(torch.ones(1, 1, 4, 4, 4)).sum().backward()
        optimizer.step()
    assert again.replays == 2
    copied = copy.deepcopy(optimizer)
    assert "_graphs" in vars(optimizer) and "_graphs" not in vars(copied)
    assert optimizer.state_dict().keys() == {"state", "param_groups"}
