"""One training step, as `rarevox train` takes it, on fake tensors."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer

from rarevox import losses, networks
from rarevox.pipeline.device import Precision, place_network
from rarevox.pipeline.training import GradientLog, Muon, TrainingStep, WeightAverage
from rarevox.pipeline.training.steps.alternating import AlternatingStep
from tests.pretended_cuda.inside.device import pinned
from tests.pretended_cuda.inside.ledger import Ledger

CUDA = torch.device("cuda", 0)
FORWARD = IterationEvents.FORWARD_COMPLETED


def highresnet() -> torch.nn.Module:
    return networks.HighResNet(in_channels=1, out_channels=3)


def default_loss() -> torch.nn.Module:
    return losses.GeneralizedDiceCELoss(batch=True)


def take_steps(
    ledger: Ledger,
    *,
    device: torch.device = CUDA,
    make: Callable[[], torch.nn.Module] = highresnet,
    loss: torch.nn.Module | None = None,
    kind: Callable[..., TrainingStep] = TrainingStep,
    dtype: torch.dtype = torch.bfloat16,
    size: Sequence[int] = (48, 48, 48),
    margin: Sequence[int] = (0, 0, 0),
    loss_margin: int = 0,
    optimizer: Callable[..., torch.optim.Optimizer] = Muon,
    ema: bool = False,
    label_channels: int = 1,
    steps: int = 3,
    cuda_graphs: bool = False,
    gradient_log: bool = False,
) -> list[dict[str, Any]]:
    """Take some steps; the ledger holds the last of them alone."""
    loss = default_loss() if loss is None else loss
    network = place_network(make(), device)
    more: dict[str, Any] = {"cuda_graphs": cuda_graphs}
    if kind is not TrainingStep:
        more["loss"] = loss
    if kind is AlternatingStep:
        more["second_optimizer"] = Muon(network.parameters())
    step = kind(Precision(device, dtype), margin=margin, loss_margin=loss_margin, **more)
    rows: list[dict[str, Any]] = []
    log = GradientLog(loss, types.SimpleNamespace(gradients=rows.append), step.scaler, every=int(gradient_log))
    average = WeightAverage(network, decay=0.999) if ema else None
    engine = types.SimpleNamespace(
        state=types.SimpleNamespace(device=device, iteration=1, output=None),
        network=network,
        optimizer=optimizer(network.parameters()),
        inferer=SimpleInferer(),
        loss_function=loss,
        fire_event=lambda event: log.measure(engine) if log.every and event is FORWARD else None,
    )
    outputs = []
    for iteration in range(1, steps + 1):
        engine.state.iteration = iteration
        image = pinned(torch.empty(2, 1, *size))
        label = pinned(torch.zeros(2, label_channels, *size, dtype=torch.uint8 if label_channels == 1 else torch.int32))
        if iteration == steps:
            ledger.clear()
        outputs.append(step(engine, {"image": image, "label": label}))
        if average is not None:
            average.update()
    return outputs
