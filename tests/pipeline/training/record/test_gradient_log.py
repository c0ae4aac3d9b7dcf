from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rarevox.losses import CrossEntropyLoss, DiceCELoss, GeneralizedDiceCELoss
from rarevox.networks import HighResNet
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.record.gradient_log import GradientLog
from rarevox.pipeline.training.record.run_log import RunLog, read_rows
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.test_step import CPU32, batch, engine_for


def make_log(folder: Path) -> RunLog:
    return RunLog(folder, optimizer=None, budget=Budget(iterations=1), tensorboard=False)


def watched(engine: Any, log: GradientLog) -> Any:
    """The engine with the log called where the trainer would call it."""

    def fire(event: Any) -> None:
        if event.name == "FORWARD_COMPLETED":
            log._when_due(engine)

    engine.fire_event = fire
    return engine


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return HighResNet(in_channels=1, out_channels=2, width=2)


def test_norms_and_cosine_are_those_of_autograd(tmp_path: Path) -> None:
    """Against two passes of their own over copies of the network, the terms being separate losses."""
    network, loss = small_network().double(), DiceCELoss(alpha=0.25)
    twin, doubled = small_network().double(), batch(12)
    doubled["image"] = doubled["image"].double()
    twin.train()
    expected = {}
    for name, single in (("dice", DiceCELoss(alpha=1.0)), ("cross_entropy", CrossEntropyLoss())):
        value = single(twin(doubled["image"]), doubled["label"]) / (2 if name == "dice" else 1)
        twin.zero_grad()
        value.backward()
        flat = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None]).double()
        expected[name] = (float(value.detach()), flat)
    log = GradientLog(loss, make_log(tmp_path), TrainingStep(CPU32).scaler, every=1)
    TrainingStep(CPU32)(watched(engine_for(network, loss), log), doubled)
    (row,) = read_rows(tmp_path / "gradients.jsonl")
    assert (row["iteration"], row["alpha"]) == (1, 0.25)
    for name, (value, gradient) in expected.items():
        assert row["terms"][name] == pytest.approx(value, rel=1e-5)
        assert row["norms"][name] == pytest.approx(float(gradient.norm()), rel=1e-4)
    a, b = expected["dice"][1], expected["cross_entropy"][1]
    assert row["cosine"] == pytest.approx(float(torch.dot(a, b) / a.norm() / b.norm()), abs=1e-4)


def test_the_training_is_the_same_with_the_log_as_without(tmp_path: Path) -> None:
    weights = []
    for every in (0, 2):
        network, loss = small_network(), GeneralizedDiceCELoss(batch=True)
        log = GradientLog(loss, make_log(tmp_path / str(every)), TrainingStep(CPU32).scaler, every=every or 99)
        engine = engine_for(network, loss) if every == 0 else watched(engine_for(network, loss), log)
        step = TrainingStep(CPU32, margin=(0, 0, 0), loss_margin=2)
        for iteration in range(1, 6):
            engine.state.iteration = iteration
            step(engine, batch(12))
        weights.append([value.clone() for value in network.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert [row["iteration"] for row in read_rows(tmp_path / "2" / "gradients.jsonl")] == [1, 3, 5]


def test_at_the_default_interval_it_costs_less_than_a_twentieth(tmp_path: Path) -> None:
    """In passes, which are what time goes into: 2 measurements in 100 steps, each of two backward passes."""
    network, loss = torch.nn.Conv3d(1, 2, 1), DiceCELoss()
    passes = []
    network.weight.register_hook(lambda gradient: passes.append(1))
    engine = watched(engine_for(network, loss), GradientLog(loss, make_log(tmp_path), TrainingStep(CPU32).scaler))
    for iteration in range(1, 101):
        engine.state.iteration = iteration
        TrainingStep(CPU32)(engine, batch(3))
    assert len(passes) - 100 == 4
    assert (len(passes) - 100) / 100 < 0.05


def test_bad_logits_give_no_row_and_the_step_is_skipped(tmp_path: Path) -> None:
    network, loss = torch.nn.Conv3d(1, 2, 1), DiceCELoss()
    log = GradientLog(loss, make_log(tmp_path), TrainingStep(CPU32).scaler, every=1)
    data = batch()
    data["image"][0, 0, 0, 0, 0] = float("nan")
    step = TrainingStep(CPU32)
    step(watched(engine_for(network, loss), log), data)
    assert step.skipped == 1
    assert read_rows(tmp_path / "gradients.jsonl") == []


def test_a_scale_of_float16_is_taken_out_again(tmp_path: Path) -> None:
    class Scaler:
        def scale(self, value: torch.Tensor) -> torch.Tensor:
            return 1024 * value

        def get_scale(self) -> float:
            return 1024.0

    for name, scaler in (("plain", TrainingStep(CPU32).scaler), ("scaled", Scaler())):
        network, loss = small_network(), DiceCELoss()
        log = GradientLog(loss, make_log(tmp_path / name), scaler, every=1)
        TrainingStep(CPU32)(watched(engine_for(network, loss), log), batch(12))
    plain, scaled = (read_rows(tmp_path / name / "gradients.jsonl")[0] for name in ("plain", "scaled"))
    assert scaled["norms"] == pytest.approx(plain["norms"], rel=1e-5)
    assert scaled["terms"] == plain["terms"]


def test_a_term_without_gradient_has_no_cosine(tmp_path: Path) -> None:
    """No foreground in labels or weights that matter: here simply logits that do not depend on the weights."""
    network, loss = torch.nn.Conv3d(1, 2, 1), DiceCELoss()
    log = GradientLog(loss, make_log(tmp_path), TrainingStep(CPU32).scaler, every=1)
    logits = 0 * network(torch.randn(1, 1, 4, 4, 4))
    state = SimpleNamespace(iteration=1, output={"pred": logits, "label": torch.ones(1, 1, 4, 4, 4)})
    log.measure(SimpleNamespace(state=state, network=network))
    text = (tmp_path / "gradients.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text)["cosine"] is None


@pytest.mark.parametrize(
    ("loss", "every", "message"),
    [
        (CrossEntropyLoss(), 10, "gradient_log needs a loss of two terms, and CrossEntropyLoss has one"),
        (DiceCELoss(), -1, "every is -1; expected a whole number"),
        (DiceCELoss(), 2.5, "every is 2.5"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, loss: Any, every: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GradientLog(loss, make_log(tmp_path), TrainingStep(CPU32).scaler, every=every)


def test_nothing_is_measured_by_default_of_the_configuration(tmp_path: Path) -> None:
    GradientLog(CrossEntropyLoss(), make_log(tmp_path), TrainingStep(CPU32).scaler, every=0).attach(
        SimpleNamespace(add_event_handler=lambda *_: pytest.fail("attached"))
    )
