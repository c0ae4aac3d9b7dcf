"""A training step for two optimisers in turn, one for each term of the loss."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.optim import Optimizer

from rarevox.pipeline.device import Precision
from rarevox.pipeline.training.steps.step import Objective, TrainingStep
from rarevox.pipeline.training.steps.two_terms import require_two_terms


class AlternatingStep(TrainingStep):
    """:class:`TrainingStep` that follows the first term alone in odd steps and the second alone in even ones.

    The first term is stepped by the trainer's optimiser, the second by ``second_optimizer``, each with its own
    learning rate and moments. A step costs what an ordinary one costs: one forward and one backward pass. (Two
    updates from one forward pass would take the second gradient at weights that the first update has left.) The terms
    are unweighted, so the share α has no part in the training; the loss that is logged is the mixture with it.

    Args:
        precision: as of :class:`TrainingStep`.
        loss: the loss that is trained, of two terms.
        second_optimizer: of the same parameters; saved with the step.
        options: all others of :class:`TrainingStep`.

    Raises:
        RequestError: a loss of one term.
    """

    def __init__(
        self, precision: Precision, *, loss: torch.nn.Module, second_optimizer: Optimizer, **options: Any
    ) -> None:
        super().__init__(precision, **options)
        self.loss = require_two_terms(loss, "a step of two optimisers")
        self.second_optimizer = second_optimizer

    def turn(self, engine: SupervisedTrainer) -> int:
        """0 where the first term's turn is, 1 where the second's."""
        return (int(engine.state.iteration) - 1) % 2

    def _objective(self, engine: SupervisedTrainer, logits: Tensor, labels: Tensor) -> Objective:
        terms = self.loss.terms(logits, labels)
        return Objective(self.loss.mix(terms), terms)

    def _backward(self, engine: SupervisedTrainer, objective: Objective) -> None:
        self.scaler.scale(list(objective.terms.values())[self.turn(engine)]).backward()

    def _optimizer(self, engine: SupervisedTrainer) -> Optimizer:
        return self.second_optimizer if self.turn(engine) else engine.optimizer  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {**super().state_dict(), "second_optimizer": self.second_optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        super().load_state_dict(state)
        self.second_optimizer.load_state_dict(state["second_optimizer"])
