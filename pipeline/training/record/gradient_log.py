"""How strongly each term of a loss pulls, and whether the terms pull the same way: logged while training."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from rarevox.losses import NonFiniteLogitsError
from rarevox.losses.sums.checks import checked_later
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.record.run_log import RunLog
from rarevox.pipeline.training.steps.gradients import cosine, inners, term_gradients, trained
from rarevox.pipeline.training.steps.late import check_all
from rarevox.pipeline.training.steps.step import finite_everywhere
from rarevox.pipeline.training.steps.two_terms import require_two_terms


class GradientLog:
    """Every so many steps write the gradient norm of each term and the cosine between them to the run's log.

    The terms are those of ``loss.terms``, unweighted; the loss's own gradient is 2 (α · first + (1 − α) · second) of
    theirs. The gradients are taken on the step's own forward pass, with respect to all trained parameters, and
    nothing is left in ``.grad``: the training is what it would be without the log (on a CPU bit for bit).

    One measurement costs one more evaluation of the loss and two more backward passes, which is less than two steps;
    at the default interval of 50 steps that is less than 2 / 50 = 4 % of the training. A step that is measured holds
    two more sets of gradients beside its activations.

    Args:
        loss: with two terms.
        log: takes a row for each measurement.
        scaler: of the step; float16 gradients are taken at its scale, or they would vanish.
        every: steps between measurements, the first step being measured; 0 measures nothing.

    Raises:
        RequestError: a negative interval, or a loss of one term while ``every`` is not 0.
    """

    def __init__(self, loss: Any, log: RunLog, scaler: torch.amp.GradScaler, *, every: int = 50) -> None:
        if every < 0 or every != int(every):
            raise RequestError(f"gradient_log#every is {every}; expected a whole number of steps, or 0 for no log")
        if every:
            require_two_terms(loss, "gradient_log")
        self.loss = loss
        self.log = log
        self.scaler = scaler
        self.every = int(every)

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        if self.every:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._when_due)

    def _when_due(self, engine: Engine) -> None:
        if (engine.state.iteration - 1) % self.every == 0:
            self.measure(engine)

    def measure(self, engine: Engine) -> None:
        """Log the step in hand, whose logits and labels are in ``engine.state.output``; nothing for bad logits."""
        if not finite_everywhere(engine.state.output[Keys.PRED]):
            return
        with checked_later() as unchecked:
            try:
                terms = self.loss.terms(engine.state.output[Keys.PRED], engine.state.output[Keys.LABEL])
            except NonFiniteLogitsError:
                return
        scaled = {name: self.scaler.scale(term) for name, term in terms.items()}
        first, second = term_gradients(scaled, trained(engine.network), keep_graph=True).values()
        values = torch.stack([term.detach().double() for term in terms.values()])
        scale = self.scaler.scale(values.new_ones(1))
        found = [values, inners(first, second), scale, *(one.seen.double() for one in unchecked)]
        numbers = torch.cat(found).tolist()  # all in one transfer, the only wait
        try:
            check_all(numbers[6:], unchecked)
        except NonFiniteLogitsError:
            return
        of_first, of_second, product, scaled_by = numbers[2:6]
        lengths = [math.sqrt(square) / scaled_by if scaled_by else math.nan for square in (of_first, of_second)]
        self.log.gradients(
            {
                "iteration": engine.state.iteration,
                "alpha": self.loss.alpha,
                "terms": dict(zip(terms, map(number, numbers[:2]), strict=True)),
                "norms": dict(zip(terms, map(number, lengths), strict=True)),
                "cosine": number(cosine(of_first, of_second, product)),
            }
        )


def number(value: float) -> float | None:
    """The value, or None (JSON's null) where it is not finite."""
    return value if math.isfinite(value) else None
