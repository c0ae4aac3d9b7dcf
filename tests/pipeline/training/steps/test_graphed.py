"""Steps by graphs are the steps without; the graphs are made of Python's calls here, that of a device in tests/gpu."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from rarevox.losses import DiceCELoss, GeneralizedDiceCELoss
from rarevox.losses.sums.checks import checked_later
from rarevox.pipeline.training.steps import graphed, graphed_loss, muon, recording
from rarevox.pipeline.training.steps.muon import Muon
from rarevox.pipeline.training.steps.projected import ProjectedStep
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.test_step import CPU32, batch, engine_for


class Recorder:
    """Starts a function anew in the memory of its first results, as a graph does.

    What a graph holds of the capture (a momentum of 1, the pass forward that a pass back follows) is brought about
    anew, and leaves no trace of its own.
    """

    def __init__(self) -> None:
        self.replays = 0
        self.network: nn.Module = nn.Identity()
        self._forward: Callable[[], Any] = tuple

    def __call__(self, run: Callable[[], Sequence[torch.Tensor]], like: Any, stream: Any) -> Any:
        found, is_back = list(run()), like is not None
        if is_back:  # of one pass forward there may be several back, so that the first must leave what it read
            for one, again in zip(found, run(), strict=True):
                assert torch.equal(one, again)
        else:
            self._forward = run

        def replay() -> None:
            self.replays += 1
            before = [buffer.clone() for buffer in self.network.buffers()]
            with torch.enable_grad(), SteadyStatistics(self.network).of_the_batch_alone():
                if is_back:
                    self._forward()
                fresh = run()
            with torch.no_grad():
                for one, new in zip(found, fresh, strict=True):
                    one.detach().copy_(new.detach())
                for buffer, old in zip(self.network.buffers(), before, strict=True):
                    buffer.copy_(old if is_back else buffer)

        return replay, (found, "a pool")


class Again:
    """The same for functions that leave nothing but their results."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, run: Callable[[], Sequence[torch.Tensor]], pool: Any, stream: Any) -> Any:
        found = list(run())

        def replay() -> None:
            self.replays += 1
            for one, new in zip(found, run(), strict=True):
                one.detach().copy_(new.detach())

        return replay, (found, "a pool")


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Again:
    """Losses and functions of tensors are captured on the CPU too."""
    found = Again()
    for module in (recording, graphed_loss):
        monkeypatch.setattr(module, "recorded", found)
        monkeypatch.setattr(module, "graphable", lambda tensor: True)
    monkeypatch.setattr(muon, "is_on_gpu", lambda tensor: tensor.ndim > 2)  # of the kernels, not of the counters
    return found


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(graphed, "recorded", found)

    def usable(network: nn.Module, images: torch.Tensor) -> bool:
        found.network = network
        return True

    monkeypatch.setattr(graphed, "usable", usable)
    return found


def network_of() -> nn.Module:
    torch.manual_seed(0)
    norms = nn.BatchNorm3d(3), nn.BatchNorm3d(3, momentum=0.02)
    return nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), norms[0], nn.ReLU(), nn.Conv3d(3, 3, 1), norms[1], nn.ReLU(), nn.Conv3d(3, 2, 1)
    )


def trained(
    step: TrainingStep,
    steps: int = 6,
    network: nn.Module | None = None,
    sizes: Sequence[int] = (8,),
    loss: nn.Module | None = None,
) -> Any:
    network = network or network_of()
    engine = engine_for(network, loss or GeneralizedDiceCELoss())
    engine.optimizer = Muon(network.parameters(), lr=0.05)
    torch.manual_seed(1)
    losses = []
    for iteration in range(1, steps + 1):
        engine.state.iteration = iteration
        size = sizes[iteration % len(sizes)]
        image = torch.randn(2, 1, size, size, size)
        losses.append(step(engine, {"image": image, "label": (image > 1).long()})["loss"])
    return network.state_dict(), losses


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
