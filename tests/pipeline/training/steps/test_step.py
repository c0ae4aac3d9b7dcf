from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.inferers import SimpleInferer

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.pipeline.device import Precision
from rarevox.pipeline.training.steps.step import TrainingStep, crop_faces

CPU32 = Precision(torch.device("cpu"), torch.float32)


def engine_for(network: torch.nn.Module, loss: Any) -> Any:
    return SimpleNamespace(
        state=SimpleNamespace(device=torch.device("cpu"), iteration=1, output=None),
        network=network,
        inferer=SimpleInferer(),
        loss_function=loss,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        fire_event=lambda event: None,
    )


def batch(size: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, size, size, size, generator=generator)
    return {"image": image, "label": (image > 0.5).to(torch.uint8)}


def test_the_step_is_plain_gradient_descent() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    loss = GeneralizedDiceCELoss()
    expected = [p.detach().clone() for p in network.parameters()]
    value = loss(network(batch()["image"]), batch()["label"])
    gradients = torch.autograd.grad(value, list(network.parameters()))
    output = TrainingStep(CPU32, clip_norm=None)(engine_for(network, loss), batch())
    assert output["loss"] == pytest.approx(float(value))
    for parameter, before, gradient in zip(network.parameters(), expected, gradients, strict=True):
        assert torch.allclose(parameter, before - 0.1 * gradient, atol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    before = [p.detach().clone() for p in network.parameters()]
    TrainingStep(CPU32, clip_norm=1e-3)(engine_for(network, GeneralizedDiceCELoss()), batch())
    moved = torch.cat([(p - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-4, rel=1e-3)


def test_the_loss_sees_only_the_effective_region() -> None:
    """A valid 3³ convolution loses one voxel a face and the loss margin one more: of 8, four remain on each axis."""
    seen = {}

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.update(logits=logits.detach(), labels=labels)
        return logits.square().mean()

    data = batch(8)
    network = torch.nn.Conv3d(1, 2, 3)
    full = network(data["image"]).detach()
    TrainingStep(CPU32, margin=(1, 1, 1), loss_margin=1)(engine_for(network, loss), data)
    assert torch.allclose(seen["logits"], full[:, :, 1:-1, 1:-1, 1:-1], atol=1e-6)
    assert torch.equal(seen["labels"], data["label"][:, :, 2:-2, 2:-2, 2:-2])


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Conv3d(1, 2, 1))
    before = [p.detach().clone() for p in (*network.parameters(), *network.buffers())]
    step = TrainingStep(CPU32, patience=3)
    for loss in (GeneralizedDiceCELoss(), lambda logits, labels: logits.sum() * float("nan")):
        bad = batch()
        bad["image"][0, 0, 0, 0, 0] = float("inf")
        step(engine_for(network, loss), bad)
    after = (*network.parameters(), *network.buffers())
    assert all(torch.equal(one, b) for one, b in zip(after, before, strict=True)), "running statistics move too"
    assert step.skipped == 2
    with pytest.raises(FloatingPointError, match="3 steps in a row"):
        step(engine_for(network, lambda logits, labels: logits.sum() * float("nan")), batch())


def test_faces_are_cut_on_each_axis() -> None:
    volume = torch.arange(4 * 5 * 6).reshape(1, 1, 4, 5, 6)
    assert torch.equal(crop_faces(volume, (1, 0, 2)), volume[:, :, 1:3, :, 2:4])


def test_running_statistics_span_many_small_batches() -> None:
    """They are a function of the iteration alone, so that a run that goes on repeats the uninterrupted one."""
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Conv3d(1, 2, 1))
    engine = engine_for(network, GeneralizedDiceCELoss())
    for iteration, momentum in ((1, 1.0), (4, 0.25), (125, 0.08), (1000, 0.04)):
        engine.state.iteration = iteration
        TrainingStep(CPU32)(engine, batch())
        assert network[0].momentum == pytest.approx(momentum)
        network[0].momentum = 0.1
    TrainingStep(CPU32, statistics_patches=4)(engine, batch())
    assert network[0].momentum == 0.1


@pytest.mark.parametrize("part", [lambda network: network, lambda network: network[1]], ids=["all", "a part"])
def test_every_part_of_a_network_is_in_training(part) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    engine, step = engine_for(network, GeneralizedDiceCELoss()), TrainingStep(CPU32)
    for _ in range(2):
        part(network).eval()
        step(engine, batch())
        assert all(module.training for module in network.modules())
