"""The exponential moving average of a network's weights: the model that is validated and kept."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from rarevox.pipeline.errors import RequestError


def decay_at(step: int, decay: float) -> float:
    """The decay of update number ``step`` (from 1): min(decay, (1 + t) / (10 + t)).

    The average then always spans about the last tenth of the training until it reaches its full length, so that a
    short run is not held back by its first weights.

    >>> [round(decay_at(step, 0.999), 3) for step in (1, 10, 100, 100_000)]
    [0.182, 0.55, 0.918, 0.999]
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """Average the weights over the steps: average ← d · average + (1 − d) · weights after every step.

    The validations and ``models/model.pt`` use the averaged network; the training itself is what it would be without.
    Floating-point buffers (batch normalisation's running mean and variance) are averaged as the weights are, since the
    statistics of the averaged network lie near the averaged statistics; whole numbers (counters) are the latest. The
    average is on the network's device and costs one copy of the network in memory and a pass over the weights a step.

    Args:
        network: the network that is trained.
        decay: d, from 0 to below 1, after the warm-up of :func:`decay_at`; None switches the average off.

    Raises:
        RequestError: a decay outside 0 to 1.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the warm-up is
    TensorFlow's (``ExponentialMovingAverage``).

    >>> average = WeightAverage(torch.nn.Linear(1, 1), decay=None)
    >>> average.network is average.trained
    True
    """

    def __init__(self, network: torch.nn.Module, *, decay: float | None = None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise RequestError(f"ema_decay is {decay}; expected 0 to below 1 (0.999 for example), or null for none")
        self.trained = network
        self.decay = decay
        self._average = None
        if decay is not None:
            self._average = AveragedModel(network, use_buffers=True)
            self._average.requires_grad_(False)

    @property
    def network(self) -> torch.nn.Module:
        """The network to validate and keep: the averaged one, or the trained one where no average is taken."""
        return self.trained if self._average is None else self._average.module

    def attach(self, engine: Engine) -> None:
        """Follow the trainer; stands before validation and checkpoint among the handlers."""
        if self._average is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def update(self, _: Engine | None = None) -> None:
        """Take in the weights as they are now; the first update copies them.

        As ``AveragedModel.update_parameters`` does, which would send the number of updates to the device each time.
        """
        if self._average is None:
            return
        assert self.decay is not None
        averages, current = _tensors(self._average.module), _tensors(self.trained)
        update = int(self._average.n_averaged)
        moved = [place for place, one in enumerate(averages) if update and one.is_floating_point()]
        copied = [place for place in range(len(averages)) if place not in set(moved)]
        with torch.no_grad():
            if moved:
                share = 1 - decay_at(update, self.decay)
                torch._foreach_lerp_([averages[n] for n in moved], [current[n] for n in moved], share)
            if copied:
                torch._foreach_copy_([averages[n] for n in copied], [current[n] for n in copied])
        self._average.n_averaged += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        if self._average is not None:
            self._average.load_state_dict(state)


def _tensors(network: torch.nn.Module) -> list[Tensor]:
    """All that is averaged: parameters and buffers."""
    return [*network.parameters(), *network.buffers()]
