"""A training step whose two terms no longer work against each other: projected gradients."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor

from rarevox.pipeline.device import Precision
from rarevox.pipeline.training.steps.gradients import term_gradients, trained, without_conflict
from rarevox.pipeline.training.steps.step import Objective, TrainingStep
from rarevox.pipeline.training.steps.two_terms import require_two_terms


class ProjectedStep(TrainingStep):
    """:class:`TrainingStep` with each term's gradient freed of its component against the other's (PCGrad).

    Where the terms' gradients have a negative inner product, each is projected on the plane normal to the other
    (:func:`rarevox.pipeline.training.steps.gradients.without_conflict`); the two are then mixed as the loss mixes its
    terms, clipped and stepped as ever. Where they do not conflict the step is the ordinary one. It costs a second
    backward pass.

    Args:
        precision: as of :class:`TrainingStep`.
        loss: the loss that is trained, of two terms.
        options: all others of :class:`TrainingStep`.

    Raises:
        RequestError: a loss of one term.

    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020.
    """

    def __init__(self, precision: Precision, *, loss: torch.nn.Module, **options: Any) -> None:
        super().__init__(precision, **options)
        self.loss = require_two_terms(loss, "the projection of gradients")

    def _objective(self, engine: SupervisedTrainer, logits: Tensor, labels: Tensor) -> Objective:
        terms = self.loss.terms(logits, labels)
        return Objective(self.loss.mix(terms), terms)

    def _backward(self, engine: SupervisedTrainer, objective: Objective) -> None:
        """The loss is linear in its terms, so its gradient is the same mixture of theirs."""
        parameters = trained(engine.network)
        scaled = {name: self.scaler.scale(term) for name, term in objective.terms.items()}
        names = list(scaled)
        first, second = without_conflict(*term_gradients(scaled, parameters).values())
        for parameter, *pair in zip(parameters, first, second, strict=True):
            parameter.grad = self.loss.mix(dict(zip(names, pair, strict=True)))
