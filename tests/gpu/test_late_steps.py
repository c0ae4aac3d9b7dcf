"""Steps that the device itself takes or leaves out, and that are read when the next one is queued."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.inferers import SimpleInferer

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.networks import HighResNet
from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.training import Muon, TrainingStep
from rarevox.pipeline.training.steps.late import LateLoss

pytestmark = pytest.mark.gpu


def training(on: str, dtype: torch.dtype, cuda_graphs: bool = False) -> tuple[Any, TrainingStep]:
    """A small network after five steps or more; in float16 the first may be skipped until the scale is low enough."""
    device = torch.device(on)
    torch.manual_seed(0)
    network = place_network(HighResNet(in_channels=1, out_channels=3, width=4), device)
    engine = SimpleNamespace(
        state=SimpleNamespace(device=device, iteration=1, output=None),
        network=network,
        inferer=SimpleInferer(),
        loss_function=GeneralizedDiceCELoss(),
        optimizer=Muon(network.parameters()),
        fire_event=lambda event: None,
    )
    step = TrainingStep(Precision(device, dtype), cuda_graphs=cuda_graphs)
    for engine.state.iteration in range(1, 31):
        taken = len(engine.optimizer.state) > 0
        step(engine, batch())
        # By graphs the passes are captured in the second step, the loss in the third: what comes then is replayed.
        if taken and engine.state.iteration >= 5:
            return engine, step
    raise AssertionError("no step was taken")


def batch() -> dict[str, torch.Tensor]:
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": (image > 1).to(torch.uint8) + (image > 2).to(torch.uint8)}


def all_of(engine: Any) -> list[torch.Tensor]:
    """Weights, statistics and the optimiser's state, as they are now."""
    state = [value for one in engine.optimizer.state.values() for value in one.values()]
    return [torch.as_tensor(value).clone() for value in (*engine.network.state_dict().values(), *state)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("wrong", ["image", "label"])
@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "in graphs"])
def test_a_step_that_goes_wrong_leaves_everything_as_it_was(on, dtype, wrong, graphs) -> None:
    if on == "cpu" and dtype == torch.float16:
        pytest.skip("a precision of CUDA devices")
    engine, step = training(on, dtype, graphs)
    before, skipped, data = all_of(engine), step.skipped, batch()
    data[wrong][0, 0, 3, 3, 3] = math.inf if wrong == "image" else 7
    engine.state.iteration += 1
    if wrong == "label":
        with pytest.raises(ValueError, match="from 0 to 7"):
            step(engine, data)
            step.settle()
    else:
        loss = step(engine, data)["loss"]
        assert isinstance(loss, LateLoss) == (on != "cpu") and math.isnan(float(loss))
        assert step.skipped == skipped + 1
    if on != "cpu" or wrong == "image":  # on a CPU labels are refused in the middle of a step
        assert all(torch.equal(one, old) for one, old in zip(all_of(engine), before, strict=True))


def test_steps_are_read_when_the_next_is_queued(on) -> None:
    if on == "cpu":
        pytest.skip("there nothing is queued")
    engine, step = training(on, torch.float32)
    found = [step(engine, batch())["loss"] for engine.state.iteration in (3, 4, 5)]
    assert [loss.known for loss in found] == [True, True, False]
    assert all(math.isfinite(float(loss)) for loss in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_by_graphs_are_those_without(on, dtype) -> None:
    """As long as rounding keeps them together: in a graph small norms go through other kernels."""
    (_, launched), (_, graphed) = trainings = training(on, dtype), training(on, dtype, True)
    losses: list[list[float]] = [[], []]
    for (engine, step), found in zip(trainings, losses, strict=True):
        for engine.state.iteration in range(10, 16):
            found.append(float(step(engine, batch())["loss"]))
    # The first is a pass over weights that few steps have moved apart, its factors of so many bits; how far the steps
    # after it take them only a bound on the loss's curvature would say: these are held to be finite and to fall.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2.0**-10 if dtype == torch.float32 else 2.0**-4)
    assert all(math.isfinite(loss) for loss in losses[1]) and losses[1][-1] < losses[1][0]
    assert launched.graphs is None and graphed.graphs is not None and not graphed.graphs.held.why
    if on != "cpu":
        assert graphed.graphs.held.recorded is not None
        assert graphed._graphed_loss is not None and graphed._graphed_loss.held.recorded is not None
        found = trainings[1][0].optimizer._graphs.values()
        assert found and all(one.held.captures == 1 and not one.held.why for one in found)
