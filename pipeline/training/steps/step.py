"""One training step: forward in the chosen precision, loss on the effective region, clipped update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from rarevox.losses.sums.checks import Unchecked, checked_later
from rarevox.losses.sums.taken import ways_taken
from rarevox.pipeline.console import console
from rarevox.pipeline.device import Precision, channels_last, keep_freed_memory
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.heads import heads_of, weighted_sum
from rarevox.pipeline.training.steps.graphed import GraphedPasses
from rarevox.pipeline.training.steps.graphed_loss import GraphedLoss
from rarevox.pipeline.training.steps.late import LateLoss, is_well, judged, numbers_of, undoable
from rarevox.pipeline.training.steps.muon import Muon
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics
from rarevox.pipeline.training.steps.undo import Undo


def crop_faces(volume: torch.Tensor, margin: Sequence[int]) -> torch.Tensor:
    """A view of (B, C, *spatial) without ``margin`` voxels at both faces of each axis.

    >>> crop_faces(torch.arange(5).reshape(1, 1, 5), [1]).tolist()
    [[[1, 2, 3]]]
    """
    for axis, lost in enumerate(margin, start=2):
        if lost:
            volume = volume.narrow(axis, lost, volume.shape[axis] - 2 * lost)
    return volume


def finite_everywhere(logits: torch.Tensor) -> bool:
    """Whether the logits of all processes are finite; alone, the loss looks for itself and this is True.

    A loss that sums over the processes waits for all of them, so all must know before it is called.
    """
    if processes.count() == 1:
        return True
    return not processes.agree(not bool(torch.isfinite(logits.detach()).all()))


class Objective(NamedTuple):
    """What a step minimises: the loss as it is logged, and its terms by name where the step tells them apart."""

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]


class TrainingStep:
    """MONAI's ``iteration_update`` for SupervisedTrainer.

    While the step lasts, ``engine.state.output`` holds the logits (``pred``) and labels that the loss sees, as MONAI's
    own trainer does, so that handlers of ``IterationEvents`` find them. Of a network with deep supervision these are
    the final logits, and the objective is over all heads (:mod:`rarevox.pipeline.training.heads`). A step of another
    kind says what is minimised (``_objective``), how its gradients come about (``_backward``) and which optimiser takes
    them (``_optimizer``).

    A step whose loss or gradients are not finite is skipped and counted (``skipped``), and leaves weights and running
    statistics as they were; ``patience`` of them in a row end the run with a clear error.

    On CUDA the device itself decides whether to take a step, and what it found is read when the next one has been
    queued (:class:`rarevox.pipeline.training.steps.late.LateLoss`), so that it never waits for the host: what was wrong
    is then said a step later. The first step is read at once, and so are all with an optimiser that counts its steps
    on the host (``torch.optim.AdamW``, unless it is ``capturable``) and those of several processes.

    Args:
        precision: number format of the forward pass; float16 brings a gradient scaler.
        margin: voxels from each face of the patch that the network loses.
        loss_margin: voxels from each face of the network's output that the loss does not see.
        clip_norm: the gradients' norm is clipped to it; None leaves them.
        patience: skipped steps in a row that end the run.
        statistics_patches: patches that the running statistics of batch norms span at least
            (`rarevox.pipeline.training.steps.steady_statistics`).
        late: False reads each step's loss at once on CUDA too.
        cuda_graphs: on CUDA, in one process, the network's passes, the loss and the matrix products of Muon go through
            graphs (:mod:`rarevox.pipeline.training.steps.graphed`, ``graphed_loss`` and ``recording`` beside it).
    """

    def __init__(
        self,
        precision: Precision,
        *,
        margin: Sequence[int] = (0, 0, 0),
        loss_margin: int | Sequence[int] = 0,
        clip_norm: float | None = 12.0,
        patience: int = 20,
        statistics_patches: int = 50,
        late: bool = True,
        cuda_graphs: bool = False,
    ) -> None:
        self.precision = precision
        self.graphs = GraphedPasses(precision) if cuda_graphs else None
        # float16's gradients are made at the scaler's scale, at which alone they are not lost; a graph knows no scale.
        self._graphed_loss = GraphedLoss() if cuda_graphs and not precision.needs_scaling else None
        self.late = late and precision.device.type == "cuda"
        self._unread: LateLoss | None = None
        self._undo: dict[int, Undo] = {}
        self._begun = False
        self.statistics_patches = statistics_patches
        self._statistics: SteadyStatistics | None = None
        self._told = False
        self._modules: list[torch.nn.Module] | None = None
        self.margin = tuple(margin)
        self.loss_margin = (loss_margin,) * len(self.margin) if isinstance(loss_margin, int) else tuple(loss_margin)
        self.clip_norm = clip_norm
        self.patience = patience
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.needs_scaling)
        if precision.device.type == "cpu":
            keep_freed_memory(large=True)

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Take the step; the returned dictionary holds the loss as a number (NaN for a skipped step), or as what
        becomes one a step later."""
        device = engine.state.device
        images = batch[Keys.IMAGE].to(device, non_blocking=True, memory_format=channels_last(len(self.margin)))
        labels = batch[Keys.LABEL].to(device, non_blocking=True)
        self._in_training(engine.network)
        statistics = self._steady_statistics(engine, len(images))
        engine.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            network = engine.network if self.graphs is None else self.graphs.of(engine.network, statistics, images)
            heads = heads_of(engine.inferer(images, network), len(self.margin))
        seen = tuple(m + n for m, n in zip(self.margin, self.loss_margin, strict=True))
        heads, labels = tuple(crop_faces(head, self.loss_margin) for head in heads), crop_faces(labels, seen)
        engine.state.output = {Keys.IMAGE: images, Keys.LABEL: labels, Keys.PRED: heads[0]}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        with checked_later() as unchecked, ways_taken() as ways:
            objective = self._finite_objective(engine, heads, labels)
        self._tell(ways)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        value: float | LateLoss = math.nan
        if objective is None:
            statistics.restore()
        else:
            value = self._update(engine, objective, statistics, unchecked)
        self._settle_earlier(value)
        if not isinstance(value, LateLoss):
            self._count(value, engine.state.iteration)
        self._begun = True
        engine.state.output = {Keys.LOSS: value}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _in_training(self, network: torch.nn.Module) -> None:
        """Every module in training, as after a validation they are not; to tell a hundred takes milliseconds."""
        if self._modules is None or self._modules[0] is not network:
            self._modules = list(network.modules())
        if not all(module.training for module in self._modules):
            network.train()

    def _tell(self, ways: Sequence[str]) -> None:
        """Say once in which way the loss is computed."""
        if ways and not self._told and processes.is_first():
            console.print(f"the loss is computed by {', '.join(ways)}")
        self._told |= bool(ways)

    def _steady_statistics(self, engine: SupervisedTrainer, patches: int) -> SteadyStatistics:
        """Batch norms with the momentum of this step, and kept; on CUDA they see the patches of all processes."""
        if self._statistics is None:
            self._statistics = SteadyStatistics(engine.network, self.statistics_patches)
        if self.precision.device.type == "cuda":
            patches *= processes.count()
        self._statistics(step=max(1, engine.state.iteration), batch=patches)
        self._statistics.keep()
        return self._statistics

    def _finite_objective(
        self, engine: SupervisedTrainer, heads: Sequence[torch.Tensor], labels: torch.Tensor
    ) -> Objective | None:
        """The objective, or None where the logits are not finite, in any of the processes."""
        if not all(finite_everywhere(head) for head in heads):
            return None
        try:
            found = [self._objective(engine, head, labels) for head in heads]
            if len(found) == 1:
                return found[0]
            terms = {name: weighted_sum([one.terms[name] for one in found]) for name in found[0].terms}
            return Objective(weighted_sum([one.loss for one in found]), terms)
        except ValueError as error:
            if type(error).__name__ == "NonFiniteLogitsError":
                return None
            raise

    def _objective(self, engine: SupervisedTrainer, logits: torch.Tensor, labels: torch.Tensor) -> Objective:
        """What is minimised: the trainer's loss."""
        if self._graphed_loss is None or self.graphs is None or not self.graphs.active:
            return Objective(engine.loss_function(logits, labels), {})
        return Objective(self._graphed_loss(engine.loss_function, logits, labels), {})

    def _backward(self, engine: SupervisedTrainer, objective: Objective) -> None:
        """Leave the gradients, at the scaler's scale, in the parameters' ``grad``."""
        self.scaler.scale(objective.loss).backward()

    def _optimizer(self, engine: SupervisedTrainer) -> torch.optim.Optimizer:
        """Who takes this step: the trainer's optimiser."""
        return engine.optimizer  # type: ignore[no-any-return]

    def _update(
        self,
        engine: SupervisedTrainer,
        objective: Objective,
        statistics: SteadyStatistics,
        unchecked: Sequence[Unchecked],
    ) -> float | LateLoss:
        """Backward and optimiser step; NaN, and the running statistics as before, where not all is finite."""
        self._backward(engine, objective)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        optimizer = self._optimizer(engine)
        if isinstance(optimizer, Muon):
            optimizer.graphs = self.graphs is not None and processes.count() == 1
        self.scaler.unscale_(optimizer)
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(engine.network.parameters(), limit)
        numbers = numbers_of(objective.loss, norm, unchecked)
        changed = undoable(optimizer) if self.late and self._begun and processes.count() == 1 else None
        if changed is not None:
            return self._step_unread(engine, optimizer, changed, statistics, numbers, unchecked)
        value, well = judged(numbers.tolist(), unchecked)  # all in one transfer, the only wait of a step
        mean = processes.mean(value)
        if well := well and math.isfinite(mean):
            optimizer.step()  # of finite gradients: the scaler would ask the device for that once more
        else:
            statistics.restore()
        self.scaler.update()
        return mean if well or self.precision.needs_scaling else math.nan

    def _step_unread(
        self,
        engine: SupervisedTrainer,
        optimizer: torch.optim.Optimizer,
        changed: Sequence[torch.Tensor],
        statistics: SteadyStatistics,
        numbers: torch.Tensor,
        unchecked: Sequence[Unchecked],
    ) -> LateLoss:
        """The optimiser's step, which the device takes back where not all is finite."""
        well = is_well(numbers, unchecked)
        undo = self._undo.setdefault(id(optimizer), Undo())
        undo.keep(changed)
        optimizer.step()
        undo.restore_unless(well)
        statistics.restore_unless(well)
        self.scaler.update()
        iteration = engine.state.iteration

        def settle(found: Sequence[float]) -> float:
            value, taken = judged(found, unchecked)
            value = value if taken or self.precision.needs_scaling else math.nan
            self._count(value, iteration)
            return value

        return LateLoss(numbers, settle)

    def _settle_earlier(self, newest: float | LateLoss) -> None:
        """Read the step before, which the device has done or is doing, now that the newest is queued."""
        earlier, self._unread = self._unread, newest if isinstance(newest, LateLoss) else None
        if earlier is not None:
            earlier.settle()

    def settle(self) -> None:
        """Read the last step, if that has not been done; it may raise what a step raises."""
        self._settle_earlier(math.nan)

    def _count(self, value: float, iteration: int) -> None:
        """Keep count of skipped steps and end a run that only skips."""
        if math.isfinite(value):
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.patience:
            raise FloatingPointError(
                f"loss or gradients were not finite in {self.patience} steps in a row (to {iteration}); "
                "lower the learning rate (--set optimizer#lr=…) or train in float32 (--set precision#name=float32)"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        self.settle()
        return {"scaler": self.scaler.state_dict(), "skipped": self.skipped, "in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = int(state["skipped"])
        self.skipped_in_a_row = int(state["in_a_row"])
