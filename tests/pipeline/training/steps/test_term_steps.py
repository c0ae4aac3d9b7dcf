"""The steps that tell the two terms of a loss apart: projected gradients, two optimisers in turn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rarevox.losses import CombinedLoss, CrossEntropyLoss, DiceCELoss, DiceLoss
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.budget import Budget, PolynomialDecay
from rarevox.pipeline.training.steps.alternating import AlternatingStep
from rarevox.pipeline.training.steps.projected import ProjectedStep
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.test_step import CPU32, batch, engine_for


class Pulls(CombinedLoss):
    """Two linear terms a·m and b·m of the mean logits m, so that the gradient of a bias is a, then b, exactly."""

    def __init__(self, a: list[float], b: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.a, self.b = torch.tensor(a), torch.tensor(b)

    def terms(self, logits: torch.Tensor, labels: torch.Tensor, weight: Any = None) -> dict[str, torch.Tensor]:
        mean = logits.mean((0, 2, 3, 4))
        return {"a": (self.a * mean).sum(), "b": (self.b * mean).sum()}


def biased() -> torch.nn.Conv3d:
    """A convolution whose bias alone is trained: the logits' mean has gradient 1 with respect to it."""
    network = torch.nn.Conv3d(1, 2, 1)
    torch.nn.init.zeros_(network.bias)
    network.weight.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("a", "b", "alpha", "gradient"),
    [
        # a·b = −2, |a|² = 4, |b|² = 2: a' = a + b = (1, 1), b' = b + a/2 = (0, 1); 2 (α a' + (1 − α) b')
        ([2.0, 0.0], [-1.0, 1.0], 0.5, [1.0, 2.0]),
        ([2.0, 0.0], [-1.0, 1.0], 0.25, [0.5, 2.0]),
        # no conflict: 2 (α a + (1 − α) b)
        ([2.0, 0.0], [1.0, 1.0], 0.5, [3.0, 1.0]),
        ([2.0, 0.0], [1.0, 1.0], 0.75, [3.5, 0.5]),
    ],
)
def test_the_projected_step_by_hand(a, b, alpha, gradient) -> None:
    network, loss = biased(), Pulls(a, b, alpha=alpha)
    output = ProjectedStep(CPU32, loss=loss, clip_norm=None)(engine_for(network, loss), batch())
    torch.testing.assert_close(network.bias, -0.1 * torch.tensor(gradient))  # SGD, lr 0.1
    assert output["loss"] == pytest.approx(
        float(loss(torch.conv3d(batch()["image"], network.weight), batch()["label"])), abs=1e-5
    )


def test_without_conflict_the_projected_step_is_the_ordinary_one() -> None:
    """The cross-entropy as both terms: their gradients are one and the same."""

    class Twice(DiceCELoss):
        def terms(self, logits: torch.Tensor, labels: torch.Tensor, weight: Any = None) -> dict[str, torch.Tensor]:
            value = CrossEntropyLoss()(logits, labels)
            return {"first": value, "second": value + 0 * logits.sum()}

    moved = []
    for make in (lambda loss: TrainingStep(CPU32), lambda loss: ProjectedStep(CPU32, loss=loss)):
        torch.manual_seed(0)
        network, loss = torch.nn.Conv3d(1, 2, 3, padding=1), Twice()
        engine = engine_for(network, lambda logits, labels, loss=loss: loss.mix(loss.terms(logits, labels)))
        make(loss)(engine, batch())
        moved.append([p.detach().clone() for p in network.parameters()])
    for plain, projected in zip(*moved, strict=True):
        torch.testing.assert_close(plain, projected)


def test_a_projected_step_is_clipped_like_any_other() -> None:
    network, loss = biased(), Pulls([200.0, 0.0], [-100.0, 100.0])
    ProjectedStep(CPU32, loss=loss, clip_norm=0.5)(engine_for(network, loss), batch())
    assert float(network.bias.detach().norm()) == pytest.approx(0.05, rel=1e-4)


def make_turns(network: torch.nn.Module, loss: Any) -> tuple[AlternatingStep, Any]:
    second = torch.optim.SGD(network.parameters(), lr=0.001)
    return AlternatingStep(CPU32, loss=loss, second_optimizer=second, clip_norm=None), engine_for(network, loss)


def test_the_optimisers_step_in_turn_each_on_its_own_term() -> None:
    """Step 1: −0.1 · (2, 0); step 2: −0.001 · (−1, 1); step 3 again the first."""
    network, loss = biased(), Pulls([2.0, 0.0], [-1.0, 1.0], alpha=0.9)
    step, engine = make_turns(network, loss)
    expected = [[-0.2, 0.0], [-0.199, -0.001], [-0.399, -0.001]]
    for iteration, bias in enumerate(expected, start=1):
        engine.state.iteration = iteration
        step(engine, batch())
        torch.testing.assert_close(network.bias.detach(), torch.tensor(bias))


@pytest.mark.parametrize(("iteration", "single"), [(1, DiceLoss()), (2, CrossEntropyLoss(batch=False))])
def test_a_turn_is_the_step_of_the_term_alone(iteration: int, single: Any) -> None:
    torch.manual_seed(0)
    network, loss = torch.nn.Conv3d(1, 2, 3, padding=1), DiceCELoss(alpha=0.9)
    before = [p.detach().clone() for p in network.parameters()]
    gradients = torch.autograd.grad(single(network(batch()["image"]), batch()["label"]), list(network.parameters()))
    mixed = float(loss(network(batch()["image"]), batch()["label"]))
    step, engine = make_turns(network, loss)
    engine.state.iteration = iteration
    assert step(engine, batch())["loss"] == pytest.approx(mixed)
    rate = {1: 0.1, 2: 0.001}[iteration]
    for parameter, start, gradient in zip(network.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), start - rate * gradient)


def test_the_second_optimiser_is_saved_with_the_step() -> None:
    network, loss = biased(), Pulls([1.0, 0.0], [0.0, 1.0])
    steps = [
        AlternatingStep(CPU32, loss=loss, second_optimizer=torch.optim.Adam(network.parameters())) for _ in range(2)
    ]
    engine = engine_for(network, loss)
    engine.state.iteration = 2
    steps[0](engine, batch())
    steps[1].load_state_dict(steps[0].state_dict())
    state = steps[1].second_optimizer.state[network.bias]
    torch.testing.assert_close(state["exp_avg"], torch.tensor([0.0, 0.1]))  # (1 − β₁) · gradient
    assert state["step"] == 1


def test_one_schedule_moves_both_rates_each_from_its_own_base() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([weight], lr=1.0), torch.optim.SGD([weight], lr=0.1)]
    schedule = PolynomialDecay(optimizers, Budget(iterations=4), warmup=0.0, power=1.0)
    engine = engine_for(torch.nn.Conv3d(1, 1, 1), None)
    engine.state.iteration = 4  # three of four steps done
    optimizers[1].load_state_dict(optimizers[1].state_dict())  # an optimiser that loads has new groups
    schedule(engine)
    assert [o.param_groups[0]["lr"] for o in optimizers] == pytest.approx([0.25, 0.025])


@pytest.mark.parametrize("kind", ["projected", "alternating"])
def test_steps_that_are_not_finite_are_skipped_and_counted(kind: str) -> None:
    network, loss = biased(), Pulls([float("inf"), 1.0], [-1.0, 1.0])
    step = ProjectedStep(CPU32, loss=loss) if kind == "projected" else make_turns(network, loss)[0]
    step(engine_for(network, loss), batch())
    assert step.skipped == 1
    assert torch.equal(network.bias, torch.zeros(2))


def test_a_loss_of_one_term_is_refused() -> None:
    with pytest.raises(RequestError, match="projection of gradients needs a loss of two terms, and DiceLoss has one"):
        ProjectedStep(CPU32, loss=DiceLoss())
    with pytest.raises(RequestError, match="two optimisers needs a loss of two terms"):
        AlternatingStep(CPU32, loss=DiceLoss(), second_optimizer=torch.optim.SGD(biased().parameters()))
