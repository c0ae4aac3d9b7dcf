"""A run's checkpoint: written at least every minute, whole or absent, and taken up from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.kept.background_write import BackgroundWrite, snapshot
from rarevox.pipeline.training.kept.checkpoint import (
    load_tensors,
    random_states,
    restore_random_states,
    save_tensors,
)

LAST, PREVIOUS, DAMAGED = "last.pt", "previous.pt", "damaged.pt"


def has_checkpoint(run: str | Path) -> bool:
    """Whether a run's folder holds a checkpoint to go on from."""
    return any((Path(run) / "models" / name).is_file() for name in (LAST, PREVIOUS))


class RunCheckpoint:
    """Write ``last.pt`` every so many minutes, around validations and at the end, and take a run up from it.

    The checkpoint before becomes ``previous.pt``, which is taken where ``last.pt`` turns out to be damaged. A failed
    write (disk full, permission) is told on screen, keeps the last good checkpoint and does not end training.

    One is written, besides every ``minutes``, before the first validation, before a validation that would make the
    loss of time longer than that, and after every validation, so that the best model and what is known of it agree.
    While training goes on it is written by a thread, from a copy in memory that takes as much as the file. The minutes
    count from that copy, so that a long write does not put off the next one unless it is still under way. Copies are
    made less often where they would take more than ``share`` of the time.

    Args:
        folder: the run's ``models`` folder.
        parts: what is saved, by name; each has ``state_dict`` and ``load_state_dict``.
        loader: the training loader, whose sampler is set to the draws already made when a run is resumed.
        validation: whose validations are framed by checkpoints.
        log: is flushed before a checkpoint is written, so that it holds every step that the checkpoint has.
        minutes: between checkpoints.
        share: the most of the wall time that training may be held up by saving.
        resume: go on from ``last.pt``; a run that was stopped before its first checkpoint begins anew.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: dict[str, Any],
        loader: Any,
        *,
        validation: Any = None,
        log: Any = None,
        minutes: float = 1,
        share: float = 0.05,
        resume: bool = False,
    ) -> None:
        self.path = Path(folder) / LAST
        self.parts = parts
        self.loader = loader
        self.validation = validation
        self.log = log
        self.minutes = minutes
        self.share = share
        self.resume = resume
        self.failed = False
        self._taken = time.monotonic()
        self._seconds = 0.0
        self._stand: tuple[int, int] | None = None
        self._background = BackgroundWrite()

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._now_and_then)
        engine.add_event_handler(Events.COMPLETED, self.save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, lambda *_: self._background.wait())
        if self.validation is not None:
            self.validation.before.append(self._before_validation)
        if self.resume:
            self.load(engine)

    def seconds_between(self) -> float:
        """The least time between two checkpoints: ``minutes``, or more where they hold training up for long."""
        return max(60 * self.minutes, self._seconds / self.share)

    def _now_and_then(self, engine: Engine) -> None:
        validated = self.validation is not None and self.validation.iteration == engine.state.iteration
        due = processes.agree(time.monotonic() - self._taken >= self.seconds_between())
        if validated or (due and not processes.agree(self._background.under_way)):
            self.save(engine, wait=False)

    def _before_validation(self, engine: Engine, expected_seconds: float) -> None:
        lost = time.monotonic() - self._taken + expected_seconds
        if processes.agree(self._stand is None or lost >= self.seconds_between()):
            self.save(engine, wait=False)

    def save(self, engine: Engine, *, wait: bool = True) -> None:
        """Write the checkpoint, unless it was written since the last step and the last validation.

        Args:
            engine: the trainer.
            wait: until it is on the disk; else a thread goes on writing.
        """
        began = time.monotonic()
        self._background.finish()
        self.failed = bool(processes.agree(self.failed))
        stand = (engine.state.iteration, getattr(self.validation, "iteration", 0))
        if self._stand == stand and not self.failed:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content |= {"iteration": engine.state.iteration, "random": processes.gather(random_states())}
        if processes.is_first():
            if self.log is not None:
                self.log.flush()
            if wait:
                self._write(content)
            else:
                self._background.start(self._write, snapshot(content))
        self.failed = bool(processes.agree(self.failed))
        self._stand = stand
        self._taken = began
        self._seconds = time.monotonic() - began

    def _write(self, content: dict[str, Any]) -> None:
        try:
            save_tensors(content, self.path, keep=self.path.with_name(PREVIOUS))
            self.failed = False
        except OSError as error:
            self.failed = True
            kept = "the previous one is kept" if has_checkpoint(self.path.parent.parent) else "there is none yet"
            console.say("[yellow]checkpoint not written: {}; {} and training goes on[/]", error, kept)

    def load(self, engine: Engine) -> None:
        """Set every part, the random states, the iteration and the sampler to what the checkpoint says."""
        if not has_checkpoint(self.path.parent.parent):
            console.print("the run was stopped before its first checkpoint; it begins anew")
            return
        content = self._read()
        missing = {*self.parts, "iteration", "random"} - set(content)
        if missing:
            raise RequestError(f"{self.path} lacks {', '.join(sorted(missing))}; it cannot be resumed, train anew")
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        states = content["random"]
        if processes.rank() < len(states):
            restore_random_states(states[processes.rank()])
        engine.state.iteration = int(content["iteration"])
        engine.state.epoch = engine.state.iteration // engine.state.epoch_length
        self.loader.sampler.start = engine.state.iteration * self.loader.batch_size
        self._stand = (engine.state.iteration, getattr(self.validation, "iteration", 0))

    def _read(self) -> dict[str, Any]:
        """The newest checkpoint that is whole; a damaged one is put aside."""
        previous = self.path.with_name(PREVIOUS)
        if not self.path.is_file():
            return load_tensors(previous)  # type: ignore[no-any-return]
        try:
            return load_tensors(self.path)  # type: ignore[no-any-return]
        except RequestError as error:
            if not previous.is_file():
                raise
            content: dict[str, Any] = load_tensors(previous)
            processes.gather(None)  # all have read before it goes
            if processes.is_first():
                console.say("[yellow]{}; going on from {}, step {}[/]", error, previous.name, content["iteration"])
                self.path.replace(self.path.with_name(DAMAGED))  # never becomes the previous one
            return content
