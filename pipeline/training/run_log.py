"""What happened while training: one JSON line a step and a validation, and the same to TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from ignite.engine import Engine, Events


class RunLog:
    """``train.jsonl`` (iteration, loss, lr, seconds), ``validation.jsonl``, ``gradients.jsonl`` where the gradients are
    measured, and TensorBoard events under ``folder``.

    A resumed run appends to its files. Lines are flushed at the end of each epoch, those of validations and gradients
    at once.

    Args:
        folder: the run's ``logs`` folder.
        optimizer: whose first parameter group gives the learning rate.
        budget: gives the wall time.
        tensorboard: write event files too.
    """

    def __init__(self, folder: str | Path, *, optimizer: Any, budget: Any, tensorboard: bool = True) -> None:
        self.folder = Path(folder)
        self.optimizer = optimizer
        self.budget = budget
        self.tensorboard = tensorboard
        self._steps: TextIO | None = None
        self._writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._flush)
        engine.add_event_handler(Events.COMPLETED, self._flush)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _open(self, _: Engine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._steps = (self.folder / "train.jsonl").open("a", encoding="utf-8")
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import, so only where it is used

            self._writer = SummaryWriter(str(self.folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def _step(self, engine: Engine) -> None:
        loss, rate = engine.state.output["loss"], self.optimizer.param_groups[0]["lr"]
        row = {"iteration": engine.state.iteration, "loss": loss if loss == loss else None, "lr": rate}
        assert self._steps is not None
        self._steps.write(json.dumps({**row, "seconds": round(self.budget.seconds(), 3)}) + "\n")
        if self._writer is not None:
            self._writer.add_scalar("train/loss", loss, engine.state.iteration)
            self._writer.add_scalar("train/learning_rate", rate, engine.state.iteration)

    def validation(self, row: dict[str, Any]) -> None:
        """Add one validation: ``iteration``, ``mean_dice``, ``dice`` by structure, ``best``, ``seconds``."""
        dice = {f"dice_{structure}": value for structure, value in row["dice"].items()}
        self._add("validation", row, {"mean_dice": row["mean_dice"], **dice})

    def gradients(self, row: dict[str, Any]) -> None:
        """Add one measurement of the terms' gradients: ``iteration``, ``alpha``, ``terms``, ``norms``, ``cosine``."""
        norms = {f"norm_{name}": value for name, value in row["norms"].items()}
        terms = {f"term_{name}": value for name, value in row["terms"].items()}
        self._add("gradients", row, {"cosine": row["cosine"], "alpha": row["alpha"], **norms, **terms})

    def _add(self, kind: str, row: dict[str, Any], scalars: dict[str, float | None]) -> None:
        """One line to ``KIND.jsonl`` and the numbers among the scalars to TensorBoard."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{kind}.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            if self._writer is not None and value is not None:
                self._writer.add_scalar(f"{kind}/{name}", value, row["iteration"])

    def _flush(self, _: Engine) -> None:
        for sink in (self._steps, self._writer):
            if sink is not None:
                sink.flush()

    def _failed(self, engine: Engine, error: BaseException) -> None:
        """Keep what was logged, then let the error take its way."""
        self._flush(engine)
        raise error


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
