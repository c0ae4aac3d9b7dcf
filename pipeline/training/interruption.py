"""What Ctrl-C and SIGTERM do to a training: it ends after the step in hand, whole."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from ignite.engine import Engine, Events

from rarevox.pipeline.console import console
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.draws.workers import end_workers
from rarevox.pipeline.training.validation import Validation

SAME = 2.0
"""Seconds within which a second signal is the first once more: ``torchrun`` hands on what the terminal sent to all."""


class Interruption:
    """SIGINT (Ctrl-C) and SIGTERM end training after the step in hand: checkpoint and model are written.

    A second signal, after two seconds at the earliest, stops at once. ``signal_number`` and
    ``validation.interrupted`` tell the caller afterwards; the command then ends with status 128 + the signal's number:
    130 or 143. Of several processes, a signal to one ends all after the same step.

    The engine is only ended between two steps: ended between the count of a step and the step itself, the checkpoint
    would hold a step that was never taken.

    Args:
        validation: is cut short by a signal, and skips what is due.
        loader: the training loader, whose workers end with the run.
    """

    def __init__(self, validation: Validation, loader: Any = None) -> None:
        self.validation = validation
        self.loader = loader
        self.signal_number = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status of the command: 0 where no signal came."""
        return 128 + self.signal_number if self.signal_number else 0

    def attach(self, engine: Engine) -> None:
        """Follow the trainer, and take the signals while it runs (only the main thread may)."""
        if threading.current_thread() is threading.main_thread():
            engine.add_event_handler(Events.STARTED, self._take)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._end)
        engine.add_event_handler(Events.COMPLETED, lambda: end_workers(self.loader))
        engine.add_event_handler(Events.STARTED, self._come_last)

    def _take(self, _: Engine) -> None:
        def interrupt(number: int, _: object) -> None:
            if not self.signal_number:
                self.signal_number, self._since = number, time.monotonic()
                self._interrupt()
            elif time.monotonic() - self._since > SAME:
                self._release()
                signal.raise_signal(number)

        self._before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}

    def _interrupt(self) -> None:
        self.validation.interrupted = True
        self.validation.validator.terminate()
        if processes.is_first():
            console.print("stopping after this step; the run is kept and can be resumed (again to stop at once)")

    def _end(self, engine: Engine) -> None:
        number = int(processes.agree(self.signal_number))
        if number and not self.validation.interrupted:
            self.signal_number = number
            self._interrupt()
        if number:
            engine.state.interrupted = True
            engine.terminate()

    def _come_last(self, engine: Engine) -> None:
        """Signals are held off until all is written, and an error goes on once every other handler has put its things
        in order: the first to raise is the last."""
        engine.add_event_handler(Events.COMPLETED, self._release)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _failed(self, _: Engine, error: BaseException) -> None:
        self._release()
        end_workers(self.loader)
        raise error

    def _release(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
