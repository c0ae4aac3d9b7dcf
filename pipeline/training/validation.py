"""Validation on whole volumes while training, and the best model kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.utils.enums import CommonKeys as Keys

from rarevox.pipeline.bundle import forget_scores
from rarevox.pipeline.console import PlainLines, console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.tiling.surround import voxels_to_compute
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.dice_metric import HardDice
from rarevox.pipeline.training.draws.scan_mining import ScanMining
from rarevox.pipeline.training.draws.seeds import seeded
from rarevox.pipeline.training.kept.checkpoint import save_weights
from rarevox.pipeline.training.kept.norm_statistics import forget_statistics
from rarevox.pipeline.training.record.run_log import RunLog


def no_worse(last: Sequence[Sequence[float]], best: Sequence[Sequence[float]]) -> bool:
    """Whether ``last`` is below ``best`` by no more than two standard errors of the mean difference over cases.

    Two, since ``best`` is the highest of several scores: of ten that differ by chance alone it lies one and a half
    standard errors above their mean.

    Args:
        last: Dice of each case, by structure.
        best: of the same cases.

    Returns:
        False too where the cases are fewer than two or not the same number.

    >>> no_worse([[0.80], [0.90]], [[0.84], [0.88]])  # differences 0.04 and −0.02: mean 0.01, standard error 0.03
    True
    >>> no_worse([[0.80], [0.90]], [[0.84], [0.93]])  # 0.04 and 0.03: mean 0.035, standard error 0.005
    False
    """
    if len(last) != len(best) or len(last) < 2:
        return False
    difference = np.mean(best, axis=1) - np.mean(last, axis=1)
    return bool(difference.mean() <= 2 * difference.std(ddof=1) / math.sqrt(len(difference)))


class Validation:
    """Run the validator ``count`` times, evenly over the budget, and write ``models/model.pt`` when it is best so far.

    The last validation comes at the end of training. In between, one that is due waits until validation, itself
    included, takes no more than ``share`` of the wall time so far, so that slow scans never starve training. What it
    will take is what the last one took; before the first, it is estimated from the time of a training step, of which
    the forward pass is about a third, and the voxels of the scans and of the patches. Best is by the validator's key
    metric (mean hard Dice over structures); ties go to the later model. Without validation cases the last weights are
    the model. At the end of the budget, where the learning rate has come down, the last weights are kept unless the
    best were better by more than two standard errors of the difference between the same cases (:func:`no_worse`): the
    highest of several scores of few cases is high by luck too.

    ``before`` holds what is called before each validation, with the engine and the seconds it is expected to take. One
    that a signal or a kill cuts short comes again, at its own step, when the run is taken up; those that were logged
    after the checkpoint come again at the steps at which they were, whatever the clock says by then.

    With ``mining``, training scans are mined for false lesions after every validation but the last, in the time that
    is a validation's; it comes too where there are no validation cases. The log has a row of what came out.

    Of several processes, each validates its share of the cases, and all know all scores.

    Args:
        validator: a MONAI evaluator over whole volumes.
        metric: its key metric.
        budget: of the run.
        log: takes a row for each validation.
        folder: the run.
        count: validations in all.
        share: of the wall time.
        network: whose weights are kept, the validator's; None keeps those of the trainer.
        patience: training ends after so many validations in a row that are not above the best; None: never.
        mining: of training scans; None, or one of 0 scans, is none.

    Raises:
        RequestError: a patience below 1.
    """

    def __init__(
        self,
        validator: SupervisedEvaluator,
        *,
        metric: HardDice,
        budget: Budget,
        log: RunLog,
        folder: str | Path,
        count: int = 10,
        share: float = 0.1,
        network: torch.nn.Module | None = None,
        patience: int | None = None,
        mining: ScanMining | None = None,
    ) -> None:
        if patience is not None and patience < 1:
            raise RequestError(f"patience is {patience}; expected a number of validations from 1, or null")
        self.validator = validator
        self.metric = metric
        self.budget = budget
        self.log = log
        self.model_path = Path(folder) / "models" / "model.pt"
        self.count = max(count, 1)
        self.share = share
        self.network = network
        self.patience = patience
        self.mining = mining if mining is not None and mining.scans > 0 else None
        self.without_gain = 0
        self.best = -1.0
        self.best_rows: list[list[float]] = []
        self.spent_seconds = 0.0
        self.last_seconds: float | None = None
        self.iteration = 0
        self.interrupted = False
        self.failed = False
        self.before: list[Callable[[Engine, float], None]] = []
        self._done: int | None = None
        self._due: int | None = None
        self._again: set[int] = set()

    @property
    def under_way(self) -> bool:
        """Whether a validation has begun and not ended."""
        return self._due is not None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._stop_early)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._when_due)
        engine.add_event_handler(Events.COMPLETED, self._last)

    def _start(self, engine: Engine) -> None:
        self._first = engine.state.iteration
        self._began = time.monotonic()
        past = int(self.budget.progress(engine.state.iteration) * self.count)
        self._done = past if self._done is None else min(self._done, past)
        if engine.state.iteration in self._again and self.validate(engine):
            self._done = past

    @property
    def out_of_patience(self) -> bool:
        """Whether so many validations in a row were not above the best that training ends."""
        return self.patience is not None and self.without_gain >= self.patience

    def _stop_early(self, engine: Engine) -> None:
        if self.out_of_patience:
            console.print(f"no better validation in {self.without_gain}: training ends early (patience)")
            engine.terminate()

    def _when_due(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        progress = self.budget.progress(iteration)
        again = iteration in self._again
        due = int(progress * self.count) > (self._done or 0) and iteration > max(self._again, default=0)
        if not (again or due) or progress >= 1:
            return
        in_time = again or self.spent_seconds + self._expected_seconds(engine) <= self.share * self.budget.seconds()
        if not processes.agree(in_time):
            return
        if processes.agree(self.interrupted):  # the signal came within the step: the validation is done on resuming
            self._due = iteration
        elif self.validate(engine):
            self._done = int(progress * self.count)

    def _expected_seconds(self, engine: Engine) -> float:
        """What the next validation will take."""
        if self.last_seconds is None:
            cases = self.validator.data_loader.dataset
            shapes = (cases[n][Keys.IMAGE].shape[1:] for n in range(len(cases)))
            voxels = sum(voxels_to_compute(self.validator.inferer, shape) for shape in shapes)
            voxels += 0 if self.mining is None else self.mining.voxels()
            images = engine.state.batch[Keys.IMAGE]
            step = (time.monotonic() - self._began) / max(engine.state.iteration - self._first, 1)
            self.last_seconds = step / 3 * voxels / (images.shape[0] * math.prod(images.shape[2:]))
        return self.last_seconds

    def _last(self, engine: Engine) -> None:
        """Validate the final weights; an interrupted run only makes sure that it has a model."""
        interrupted = processes.agree(self.interrupted)
        if not interrupted and engine.state.iteration > self.iteration:
            if cases := len(self.validator.data_loader):
                console.print(f"validating the last weights, on {cases} scan{'s' * (cases != 1)}, after the budget")
            with self._shown() if cases and processes.is_first() else nullcontext():
                self.validate(engine)
        # What an earlier interruption left was no choice, and these weights have learnt more.
        unscored = interrupted and self.best < 0 and engine.state.iteration > self._first
        if unscored or not self.model_path.exists():
            self._keep(engine)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """How many scans of this process are done."""
        with PlainLines() as bar:  # a bar would stand beside that of the training
            task = bar.add_task("validating", total=len(self.validator.data_loader))
            with self.validator.add_event_handler(Events.ITERATION_COMPLETED, lambda _: bar.advance(task)):
                yield

    def validate(self, engine: Engine) -> bool:
        """Score the current weights and keep them if they are best; False where a signal cut it short."""
        scored = bool(processes.agree(len(self.validator.data_loader)))
        mining = self.mining if self.budget.progress(engine.state.iteration) < 1 else None
        if scored or mining is not None:
            self._due = engine.state.iteration  # in the checkpoint that is written now: a kill leaves it to be done
            for prepare in self.before:
                prepare(engine, self.last_seconds or 0.0)
            began = time.monotonic()
            if processes.count() > 1:
                processes.same_buffers(self.validator.network)
            # When a validation comes is the clock's choice: what it draws may not move the dropout of later steps.
            with seeded(engine.state.iteration):
                if scored:
                    self._run()
                mined = None if mining is None else mining.look(engine.state.device, lambda: self.interrupted)
            if processes.agree(self.interrupted):
                return False
            if mining is not None and mined is not None:
                self.log.mining({"iteration": engine.state.iteration, **mining.take(mined)})
            self.last_seconds = time.monotonic() - began
            self.spent_seconds += self.last_seconds
        self.iteration = engine.state.iteration
        at_end = self.budget.progress(engine.state.iteration) >= 1
        if not scored:
            self._due = None
            if at_end:
                self._keep(engine)
            return True
        mean, rows = self.metric.compute(), list(self.metric.rows)
        best = mean >= self.best or (at_end and no_worse(rows, self.best_rows))
        self.without_gain = 0 if mean > self.best else self.without_gain + 1
        self.log.validation(  # before the model: a run killed in between validates this step again and keeps it then
            {
                "iteration": self.iteration,
                "seconds": round(self.budget.seconds(), 1),
                "mean_dice": mean,
                "dice": self.metric.per_structure(),
                "best": best,
            }
        )
        if best:
            self._keep(engine)
            self.best, self.best_rows = mean, rows
        self._due = None
        return True

    def _run(self) -> None:
        """This process's cases, then the scores of all."""
        if processes.count() == 1:
            self.validator.run()
            return
        self.metric.reset()  # those of the last time, where this process has no case
        if len(self.validator.data_loader):
            self.validator.run()
        self.metric.rows = [row for rows in processes.gather(self.metric.rows) for row in rows]

    def _keep(self, engine: Engine) -> None:
        if not processes.is_first():
            return
        try:
            forget_scores(self.model_path.parents[1])
            forget_statistics(self.model_path.parents[1])
            save_weights(engine.network if self.network is None else self.network, self.model_path)
            self.failed = False
        except OSError as error:
            self.failed = True
            kept = "the previous one is kept" if self.model_path.exists() else "there is none yet"
            console.say("[yellow]best model not written: {}; {} and training goes on[/]", error, kept)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "best": self.best,
            "best_rows": self.best_rows,
            "spent_seconds": self.spent_seconds,
            "last_seconds": self.last_seconds,
            "done": self._done,
            "without_gain": self.without_gain,
            "iteration": self.iteration,
            "due": self._due,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.best = float(state["best"])
        self.best_rows = list(state["best_rows"])
        self.spent_seconds = float(state["spent_seconds"])
        self.last_seconds = state["last_seconds"]
        self._done = state["done"]
        self.without_gain = int(state["without_gain"])
        self.iteration = int(state["iteration"])
        self._due = state["due"]
        self._again = set() if self._due is None else {self._due}
        if self.log is not None:
            self._again |= processes.from_first(lambda: self.log.validated_after(self.iteration))
