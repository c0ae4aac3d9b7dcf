"""What tests of steps by graphs share: graphs made of Python's calls, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.pipeline.training.steps.muon import Muon
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics
from rarevox.pipeline.training.steps.step import TrainingStep
from tests.pipeline.training.steps.test_step import engine_for


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
