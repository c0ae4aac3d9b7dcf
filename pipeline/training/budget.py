"""How long a run trains, and what moves with its progress: the end, the learning rate, the validations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training import processes


class Budget:
    """Training ends after so many iterations, or after so many minutes of wall time.

    ``progress`` runs from 0 to 1 and is what schedules follow, so that the learning rate reaches its end at the end,
    whichever limit is set. Minutes count from the start of the command (reading the data included), and a resumed run
    goes on from the time already spent.

    Args:
        iterations: optimiser steps.
        minutes: wall time; given, it is the limit and ``iterations`` is ignored.

    Attributes:
        begun_seconds: of the run at its first step: what reading the cases took.

    Raises:
        RequestError: neither is positive.
    """

    def __init__(self, *, iterations: int | None = None, minutes: float | None = None) -> None:
        limit = iterations if minutes is None else minutes
        if limit is None or limit <= 0:
            raise RequestError(f"the budget is {limit}; give a positive --iterations or --minutes")
        self.iterations = None if minutes is not None else int(limit)
        self.minutes = minutes
        self.spent_seconds = 0.0
        self.begun_seconds = 0.0
        self._started = time.monotonic()
        self._agreed: float | None = None

    def start_at(self, monotonic_seconds: float) -> None:
        """Count wall time from an earlier moment of ``time.monotonic`` (when the command began)."""
        self._started = monotonic_seconds

    def seconds(self) -> float:
        """Wall time of the run so far, earlier parts of a resumed run included; of several processes, as agreed at
        the last beginning or end of a step."""
        return self._clock() if self._agreed is None else self._agreed

    def _clock(self) -> float:
        return self.spent_seconds + time.monotonic() - self._started

    def progress(self, iteration: int) -> float:
        """The share of the budget that is used after ``iteration`` steps, 0 to 1."""
        used = self.seconds() / (60 * self.minutes) if self.minutes is not None else iteration / (self.iterations or 1)
        return min(used, 1.0)

    def of_steps(self, iteration: int) -> float:
        """The share that is used of what the steps have: 0 at the first one, however long the cases were read."""
        begun = 0.0 if self.minutes is None else min(self.begun_seconds / (60 * self.minutes), 1.0)
        return (self.progress(iteration) - begun) / max(1 - begun, 1e-9)

    def attach(self, engine: Engine) -> None:
        """End the engine's run when the budget is used up, at once where a resumed run has used it up already."""
        if processes.count() > 1:
            for event in (Events.STARTED, Events.ITERATION_STARTED, Events.ITERATION_COMPLETED):
                engine.add_event_handler(event, self._agree)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_when_used)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._stop_when_used)

    def _agree(self, _: Engine) -> None:
        self._agreed = processes.agree(self._clock())

    def _stop_when_used(self, engine: Engine) -> None:
        if self.progress(engine.state.iteration) >= 1.0:
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"seconds": self.seconds(), "begun_seconds": self.begun_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.spent_seconds = float(state["seconds"])
        self.begun_seconds = float(state.get("begun_seconds", 0.0))  # which runs of earlier versions did not keep


def decay_factor(progress: float, *, warmup: float, power: float) -> float:
    """Linear warm-up over the first ``warmup`` of the budget, then (1 − p)^power, p from 0 to 1 over the rest.

    >>> decay_factor(0.05, warmup=0.1, power=0.9), decay_factor(1.0, warmup=0.1, power=0.9)
    (0.5, 0.0)
    """
    if progress < warmup:
        return progress / warmup
    return max(1 - (progress - warmup) / (1 - warmup), 0.0) ** power


class PolynomialDecay:
    """Set the learning rate before each step: base rate × :func:`decay_factor` of the progress through the steps.

    The first step of the warm-up is taken at a hundredth of the base rate rather than at 0.

    Args:
        optimizer: one or several; each parameter group keeps its own base rate (its ``lr`` when this is built).
        budget: whose progress is followed.
        warmup: share of the budget for the linear warm-up.
        power: exponent of the decay; 0 keeps the rate constant after the warm-up.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        budget: Budget,
        *,
        warmup: float = 0.02,
        power: float = 0.9,
    ) -> None:
        if not 0 <= warmup < 1 or power < 0:
            raise RequestError(f"warmup is {warmup}, power is {power}; expected 0 <= warmup < 1 and power >= 0")
        self.optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        self.budget = budget
        self.warmup = warmup
        self.power = power
        self.base_rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        """All parameter groups; asked for each time, as an optimiser that loads its state replaces its own."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        """Follow the engine's iterations."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the rate for the step to come."""
        if engine.state.iteration == 1:
            self.budget.begun_seconds = self.budget.seconds()
        progress = self.budget.of_steps(engine.state.iteration - 1)
        factor = max(
            decay_factor(progress, warmup=self.warmup, power=self.power), 0.01 if progress < self.warmup else 0
        )
        for group, rate in zip(self._groups(), self.base_rates, strict=True):
            group["lr"] = rate * factor
