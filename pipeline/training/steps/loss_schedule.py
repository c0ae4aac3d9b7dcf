"""The share of a loss's first term, moved with the progress of training."""

from __future__ import annotations

import math
import pydoc
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from rarevox.losses import CombinedLoss
from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.steps.two_terms import require_two_terms

Shape = Callable[[float], float]


def linear(progress: float) -> float:
    """The same way in every part of the training: t."""
    return progress


def cosine(progress: float) -> float:
    """Slow at both ends: (1 − cos πt) / 2.

    >>> [round(cosine(t), 3) for t in (0, 0.25, 0.5, 1)]
    [0.0, 0.146, 0.5, 1.0]
    """
    return (1 - math.cos(math.pi * progress)) / 2


SHAPES: dict[str, Shape] = {"linear": linear, "cosine": cosine}


def find_shape(shape: str | Shape) -> Shape:
    """``linear``, ``cosine``, the function that a dotted path names, or a callable itself.

    >>> find_shape("math.sqrt")(0.25)
    0.5

    Raises:
        RequestError: nothing of that name, or no function.
    """
    found: Any = shape
    if isinstance(shape, str):
        try:
            found = SHAPES.get(shape) or (pydoc.locate(shape) if "." in shape else None)
        except pydoc.ErrorDuringImport as error:
            raise RequestError(f"loss_schedule#shape {shape!r} cannot be imported: {error}") from error
    if not callable(found):
        raise RequestError(
            f"loss_schedule#shape {shape!r} is no function: {nearest(str(shape), SHAPES)}, or the dotted path of a "
            "function of the progress from 0 to 1"
        )
    return found  # type: ignore[no-any-return]


class LossSchedule:
    """Before each step set the loss's share α = start + (end − start) · shape(t), t the budget's progress, 0 to 1.

    α depends on the progress alone, so a run that is taken up goes on where it was, and a budget in minutes moves the
    share with the minutes. α itself is saved with the run, so that one that no shape moves is kept too.

    Args:
        loss: with two terms, whose share is moved.
        budget: whose progress is followed.
        shape: ``linear``, ``cosine``, the dotted path of a function of the progress (0 to 1) that gives the part of
            the way from ``start`` to ``end``, or such a callable; None leaves α as the loss has it.
        start: the share of the first term at the beginning.
        end: the share at the end.

    Raises:
        RequestError: a loss of one term, no such shape, or a share outside 0 to 1 at the beginning or the end (from
            the call: at any time between).

    >>> from rarevox.losses import DiceCELoss
    >>> loss, budget = DiceCELoss(), Budget(iterations=4)
    >>> schedule = LossSchedule(loss, budget, shape="linear", start=1.0, end=0.5)
    >>> [schedule.share(budget.progress(done)) for done in range(5)]
    [1.0, 0.875, 0.75, 0.625, 0.5]
    """

    def __init__(
        self, loss: Any, budget: Budget, *, shape: str | Shape | None = None, start: float = 1.0, end: float = 0.0
    ) -> None:
        self.loss = loss
        self.budget = budget
        self.start = start
        self.end = end
        self.shape = None if shape is None else find_shape(shape)
        if self.shape is not None:
            require_two_terms(loss, "loss_schedule")
            self.share(0.0)
            self.share(1.0)

    def share(self, progress: float) -> float:
        """α at this progress; needs a shape.

        Raises:
            RequestError: it is not a number from 0 to 1.
        """
        assert self.shape is not None
        way = self.shape(progress)
        alpha = self.start + (self.end - self.start) * way
        if not -1e-9 <= alpha <= 1 + 1e-9:
            raise RequestError(
                f"loss_schedule gives the share {alpha:g} at progress {progress:g} (start {self.start}, "
                f"end {self.end}, shape {way:g}); expected 0 to 1"
            )
        return min(max(alpha, 0.0), 1.0)

    def attach(self, engine: Engine) -> None:
        """Follow the engine's iterations."""
        if self.shape is not None:
            engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the share for the step to come."""
        self.loss.alpha = self.share(self.budget.progress(engine.state.iteration - 1))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; a loss of one term has nothing."""
        return {"alpha": self.loss.alpha} if isinstance(self.loss, CombinedLoss) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        if isinstance(self.loss, CombinedLoss):
            self.loss.alpha = float(state["alpha"])
