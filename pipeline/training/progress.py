"""What a person sees while a network trains."""

from __future__ import annotations

import math
import time

from ignite.engine import Engine, Events
from rich.progress import BarColumn, Progress, TextColumn

from rarevox.pipeline.console import console
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.steps.late import LateLoss, is_known
from rarevox.pipeline.training.validation import Validation
from rarevox.pipeline.words import clock


class ProgressLine:
    """A live bar with iteration, smoothed loss, validation Dice and time left; plain lines where no terminal is there.

    Args:
        budget: whose progress is shown.
        validation: whose latest and best Dice are shown.
        every_seconds: between plain lines.
    """

    def __init__(self, *, budget: Budget, validation: Validation, every_seconds: float = 30) -> None:
        self.budget = budget
        self.validation = validation
        self.every_seconds = every_seconds
        self.loss: float | None = None
        self._newest: float | LateLoss = math.nan
        self._bar: Progress | None = None
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _start(self, _: Engine) -> None:
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("training"), BarColumn(), TextColumn("{task.description}", markup=False), console=console
            )
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def describe(self, iteration: int) -> str:
        """The line: iteration, loss, Dice, time left."""
        parts = [f"{self.budget.progress(iteration):4.0%}", f"step {iteration}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.validation.best >= 0:
            parts.append(f"best Dice {self.validation.best:.4f}")
        if (left := self._left(iteration)) is not None:
            parts.append(f"left {clock(left)}")
        return "  ".join(parts)

    def _left(self, iteration: int) -> float | None:
        """Seconds until the budget is used up. Of iterations, at the pace since the first step of this call, which took
        reading and compiling with it; None before there is a pace."""
        if self.budget.minutes is not None:
            return 60 * self.budget.minutes - self.budget.seconds()
        self._first = self._first or (iteration, self.budget.seconds())
        left, steps = (self.budget.iterations or 0) - iteration, iteration - self._first[0]
        if left > 0 and steps < 1:
            return None
        return left * (self.budget.seconds() - self._first[1]) / max(steps, 1)

    def _step(self, engine: Engine) -> None:
        before, self._newest = self._newest, engine.state.output["loss"]
        loss = float(self._newest if is_known(self._newest) else before)  # what is on its way is shown a step later
        if loss == loss:
            self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        iteration = engine.state.iteration
        self._first = self._first or (iteration, self.budget.seconds())
        if self._bar is not None:
            self._bar.update(
                self._task, completed=self.budget.progress(iteration), description=self.describe(iteration)
            )
        elif time.monotonic() - self._told >= self.every_seconds:
            self._told = time.monotonic()
            console.print(self.describe(iteration))

    def _stop(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.stop()
        console.print(self.describe(engine.state.iteration))

    def _failed(self, *_: object) -> None:
        """Give the terminal back; the error takes its way (:class:`Interruption` comes last and raises it)."""
        if self._bar is not None:
            self._bar.stop()
