"""What happened while training: one JSON line a step and a validation, and the same to the trackers."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from ignite.engine import Engine, Events

from rarevox.pipeline.console import console
from rarevox.pipeline.files import write_text
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.steps.late import is_known

KINDS = ("train", "validation", "gradients", "mining")


class RunLog:
    """``train.jsonl`` (iteration, loss, lr, seconds), ``validation.jsonl``, ``gradients.jsonl`` where the gradients are
    measured, ``mining.jsonl`` where whole scans are mined, under ``folder``, and all their numbers to TensorBoard and
    the trackers.

    A resumed run goes on in its files, from which the rows after its checkpoint are taken out first, since those steps
    are taken again. Lines are flushed at the end of each epoch and before each checkpoint, those of validations and
    gradients at once; the row of a step waits until its device has given the loss
    (`rarevox.pipeline.training.steps.late`). What cannot be written (disk full) is told once and does not end training.

    Args:
        folder: the run's ``logs`` folder.
        optimizer: whose first parameter group gives the learning rate.
        budget: gives the wall time.
        tensorboard: write event files too.
        trackers: others that take the numbers (``open``, ``add``, ``flush``, ``close``, as
            :mod:`rarevox.pipeline.training.record.trackers` says); None is passed over.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        optimizer: torch.optim.Optimizer,
        budget: Budget,
        tensorboard: bool = True,
        trackers: Sequence[Any] = (),
    ) -> None:
        self.folder = Path(folder)
        self.optimizer = optimizer
        self.budget = budget
        self.tensorboard = tensorboard
        self.trackers = [tracker for tracker in trackers if tracker is not None]
        self._steps: TextIO | None = None
        self._waiting: deque[dict[str, Any]] = deque()
        self._told = False

    def attach(self, engine: Engine) -> None:
        """Follow the trainer; of several processes the first alone writes."""
        if not processes.is_first():
            return
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.flush)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _open(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self._close)  # only now, to come after the last validation
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            forget_after(self.folder / f"{kind}.jsonl", engine.state.iteration)
        self._steps = (self.folder / "train.jsonl").open("a", encoding="utf-8")
        if self.tensorboard:
            from rarevox.pipeline.training.record.trackers import TensorBoardTracker

            self.trackers.insert(0, TensorBoardTracker(self.folder / "tensorboard"))
        for tracker in self.trackers:
            tracker.open(engine.state.iteration)

    def _step(self, engine: Engine) -> None:
        loss, rate = engine.state.output["loss"], self.optimizer.param_groups[0]["lr"]
        seconds = round(self.budget.seconds(), 3)
        self._waiting.append({"iteration": engine.state.iteration, "loss": loss, "lr": rate, "seconds": seconds})
        while self._waiting and is_known(self._waiting[0]["loss"]):
            self._write_row()

    def _write_row(self) -> None:
        """Write the row of the earliest step that is not written."""
        row = self._waiting.popleft()
        loss = float(row["loss"])
        assert self._steps is not None
        self._attempt(self._steps.write, json.dumps({**row, "loss": loss if loss == loss else None}) + "\n")
        self._track({"train/loss": loss, "train/learning_rate": row["lr"]}, row["iteration"])

    def validated_after(self, iteration: int) -> set[int]:
        """The steps after ``iteration`` at which the log has a validation, or what comes with one; asked for before the
        run begins."""
        rows = [row for kind in ("validation", "mining") for row in read_rows(self.folder / f"{kind}.jsonl")]
        return {row["iteration"] for row in rows if row["iteration"] > iteration}

    def validation(self, row: dict[str, Any]) -> None:
        """Add one validation: ``iteration``, ``mean_dice``, ``dice`` by structure, ``best``, ``seconds``.

        One that was logged before a kill, and comes again at the step of the checkpoint, is replaced.
        """
        if processes.is_first():
            self._attempt(forget_after, self.folder / "validation.jsonl", row["iteration"] - 1)
        dice = {f"dice_{structure}": value for structure, value in row["dice"].items()}
        self._add("validation", row, {"mean_dice": row["mean_dice"], **dice})

    def mining(self, row: dict[str, Any]) -> None:
        """Add what whole training scans gave: ``iteration``, ``scans``, ``false_lesions``, ``patches``; likewise."""
        if processes.is_first():
            self._attempt(forget_after, self.folder / "mining.jsonl", row["iteration"] - 1)
        self._add("mining", row, {key: value for key, value in row.items() if key != "iteration"})

    def gradients(self, row: dict[str, Any]) -> None:
        """Add one measurement of the terms' gradients: ``iteration``, ``alpha``, ``terms``, ``norms``, ``cosine``."""
        norms = {f"norm_{name}": value for name, value in row["norms"].items()}
        terms = {f"term_{name}": value for name, value in row["terms"].items()}
        self._add("gradients", row, {"cosine": row["cosine"], "alpha": row["alpha"], **norms, **terms})

    def _add(self, kind: str, row: dict[str, Any], scalars: dict[str, float | None]) -> None:
        """One line to ``KIND.jsonl`` and the numbers among the scalars to the trackers."""
        if processes.is_first():
            self._attempt(self._append, self.folder / f"{kind}.jsonl", json.dumps(row) + "\n")
            self._track({f"{kind}/{name}": value for name, value in scalars.items()}, row["iteration"])

    @staticmethod
    def _append(path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line)

    def _track(self, scalars: dict[str, float | None], iteration: int) -> None:
        known = {name: value for name, value in scalars.items() if value is not None}
        for tracker in self.trackers:
            self._attempt(tracker.add, known, iteration)

    def flush(self, engine: Engine | None = None) -> None:
        """Hand everything so far to the system; trackers that send now and then do so now unless an epoch is over,
        which waits for no device."""
        while engine is None and self._waiting:
            self._write_row()
        if self._steps is not None:
            self._attempt(self._steps.flush)
        for tracker in self.trackers:
            self._attempt(tracker.flush, engine is None)

    def _close(self, engine: Engine) -> None:
        self.flush()
        status = "KILLED" if getattr(engine.state, "interrupted", False) else "FINISHED"
        for tracker in self.trackers:
            self._attempt(tracker.close, status)
        self._close_steps()

    def _close_steps(self) -> None:
        """Close the file now: what it still holds would be tried, and told, once more when Python ends."""
        if self._steps is not None:
            self._attempt(self._steps.close)
            self._steps = None

    def _attempt(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Write; the first failure is told."""
        try:
            write(*arguments)
        except OSError as error:
            if not self._told:
                console.say("[yellow]log in {} not written: {}; training goes on[/]", self.folder, error)
            self._told = True

    def _failed(self, *_: object) -> None:
        """Keep what was logged; the error takes its way (``Interruption`` comes last and raises it)."""
        with contextlib.suppress(Exception):  # of a device that may have failed
            self.flush()
        self._waiting.clear()
        self.flush()
        for tracker in self.trackers:
            self._attempt(tracker.close, "FAILED")
        self._close_steps()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of one of the log's files; a line torn by a crash is left out, a missing file has no rows."""
    rows = []
    if Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def forget_after(path: str | Path, iteration: int) -> None:
    """Take the rows of later steps, and torn lines, out of one of the log's files."""
    rows = read_rows(path)
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["iteration"] <= iteration)
    if Path(path).is_file() and kept != Path(path).read_text(encoding="utf-8"):
        write_text(path, kept)
