"""Steps by graphs are the steps without; the graphs are made of Python's calls here, that of a device in tests/gpu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.pipeline.training.steps import graphed, recording
from rarevox.pipeline.training.steps.projected import ProjectedStep
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.python_graphs import Recorder, network_of, trained
from tests.pipeline.training.steps.test_step import CPU32, batch, engine_for


@pytest.mark.parametrize(("sizes", "graphed_steps"), [((8,), 7), ((8, 6), 0), ((6, 8, 8), 5)])
def test_a_training_is_the_same(recorder: Recorder, sizes: Sequence[int], graphed_steps: int) -> None:
    plain, losses = trained(TrainingStep(CPU32), 8, sizes=sizes)
    assert recorder.replays == 0
    state, found = trained(TrainingStep(CPU32, cuda_graphs=True), 8, sizes=sizes)
    # The size that comes twice in a row is captured, and has its graphs from then on.
    assert recorder.replays == 2 * graphed_steps
    assert found == losses
    for key, value in plain.items():
        # Weights to the bit; running statistics are put together in another order of two products and a sum.
        bits = 4 * torch.finfo(torch.float32).eps if "running" in key else 0.0
        assert torch.allclose(state[key], value, rtol=bits, atol=bits), key


def test_a_parameter_that_is_another_is_seen() -> None:
    network = network_of()
    leaves = graphed.Leaves(network)
    assert leaves.are_those_of(network)
    network[0].weight.requires_grad_(False)
    assert not leaves.are_those_of(network)
    leaves = graphed.Leaves(network)
    network[0].weight.data = network[0].weight.data.clone()
    assert not leaves.are_those_of(network)
    leaves = graphed.Leaves(network)
    network[0].bias = nn.Parameter(network[0].bias.detach())
    assert not leaves.are_those_of(network)
    assert not graphed.Leaves(network).are_those_of(network_of())


def test_gradients_of_two_terms_are_kept_apart(recorder: Recorder) -> None:
    """One pass forward and two back: the first gradients must not be overwritten by the second."""
    plain, losses = trained(ProjectedStep(CPU32, loss=GeneralizedDiceCELoss()))
    state, found = trained(ProjectedStep(CPU32, loss=GeneralizedDiceCELoss(), cuda_graphs=True))
    assert recorder.replays == 3 * 5
    assert found == losses
    assert all(torch.equal(state[key], plain[key]) for key in plain if "running" not in key)


def test_a_step_that_is_skipped_leaves_the_statistics(recorder: Recorder) -> None:
    network, step = network_of(), TrainingStep(CPU32, cuda_graphs=True)
    engine = engine_for(network, GeneralizedDiceCELoss())
    for iteration in (1, 2, 3):
        engine.state.iteration = iteration
        step(engine, batch())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    engine.state.iteration, bad = 4, batch()
    bad["image"][0, 0, 0, 0, 0] = float("nan")
    step(engine, bad)
    assert step.skipped == 1
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_cannot_be_captured_goes_as_before(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphed, "recorded", refuse)
    plain, losses = trained(TrainingStep(CPU32))
    state, found = trained(TrainingStep(CPU32, cuda_graphs=True))
    assert found == losses
    assert all(torch.equal(state[key], plain[key]) for key in plain)
    told = capsys.readouterr().err
    assert told.count("no CUDA graphs of training steps") == 1
    assert "stream is capturing" in " ".join(told.split())


def test_a_norm_without_momentum_is_not_captured(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3, momentum=None), nn.Conv3d(3, 2, 1))

    plain, _ = trained(TrainingStep(CPU32), network=network())
    state, _ = trained(TrainingStep(CPU32, cuda_graphs=True), network=network())
    assert recorder.replays == 0
    assert all(torch.equal(state[key], plain[key]) for key in plain)
    assert "without momentum" in " ".join(capsys.readouterr().err.split())


class _Twice(nn.Module):
    """One norm, two passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3), nn.Conv3d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.norm(self.first(x)) + 1))


class _Tuple(nn.Conv3d):
    def forward(self, x: torch.Tensor) -> Any:
        return (super().forward(x),)


def _instance() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 1), nn.InstanceNorm3d(3, track_running_stats=True), nn.Conv3d(3, 2, 1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(_Twice, "the batch norm norm is not passed once"), (_instance, "belongs to no batch norm")],
)
def test_other_statistics_are_not_captured(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], make: Callable[[], nn.Module], reason: str
) -> None:
    states = []
    for graphs in (False, True):
        torch.manual_seed(0)
        states.append(trained(TrainingStep(CPU32, cuda_graphs=graphs), network=make())[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert recorder.replays == 0
    assert reason in " ".join(capsys.readouterr().err.split())


def test_a_network_that_answers_with_a_tuple_is_told(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    passes, network = graphed.GraphedPasses(CPU32), _Tuple(1, 2, 1)
    statistics = SteadyStatistics(network)
    statistics.keep()
    for _ in range(3):
        x = torch.ones(1, 1, 2, 2, 2)
        assert isinstance(passes.of(network, statistics, x)(x), tuple)
    assert "answers with a tuple" in " ".join(capsys.readouterr().err.split())


def test_sizes_that_change_again_and_again_are_captured_a_few_times(recorder: Recorder) -> None:
    step = TrainingStep(CPU32, cuda_graphs=True)
    plain, losses = trained(TrainingStep(CPU32), 20, sizes=(6, 6, 8, 8))
    state, found = trained(step, 20, sizes=(6, 6, 8, 8))
    assert found == losses
    assert step.graphs is not None and step.graphs.held.captures == recording.CAPTURES
    assert all(torch.equal(state[key], plain[key]) for key in plain if "running" not in key)


def test_a_pass_that_a_later_one_has_overwritten_has_no_way_back(recorder: Recorder) -> None:
    passes, network = graphed.GraphedPasses(CPU32), network_of()
    statistics = SteadyStatistics(network)
    statistics.keep()
    x = torch.ones(1, 1, 4, 4, 4)
    call = passes.of(network, statistics, x)
    call(x)
    first, _ = call(x), call(x)
    with pytest.raises(RuntimeError, match="hold a later pass"):
        first.sum().backward()


def test_nothing_is_captured_on_the_cpu() -> None:
    step = TrainingStep(CPU32, cuda_graphs=True)
    trained(step)
    assert step.graphs is not None and not step.graphs.held.why and step.graphs.held.recorded is None


def test_statistics_are_blended_by_the_momentum_of_the_step() -> None:
    norm = nn.BatchNorm3d(2)
    plain = nn.BatchNorm3d(2)
    steady, other = SteadyStatistics(norm), SteadyStatistics(plain)
    for step in range(1, 30):
        x = torch.randn(1, 2, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        steady(step=step, batch=1)
        steady.keep()
        with steady.of_the_batch_alone():
            norm(x)
        steady.blend()
        other(step=step, batch=1)
        plain(x)
        assert norm.momentum == plain.momentum
        # Each step rounds two products and a sum, of numbers of order 1.
        assert torch.allclose(norm.running_var, plain.running_var, rtol=step * 4 * 2.0**-23)
        assert torch.allclose(norm.running_mean, plain.running_mean, rtol=0, atol=step * 4 * 2.0**-23)
        assert norm.num_batches_tracked == plain.num_batches_tracked == step
