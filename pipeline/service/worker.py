"""The process that computes a service's answers, and who watches over it: what ends it costs one request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.dicom.codes import Coded
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.inference.calls.networks import Networks
from rarevox.pipeline.inference.calls.preloaded import PRELOADED
from rarevox.pipeline.service.jobs import Answer, Job, Wanted, refusal
from rarevox.pipeline.workers.job import Done
from rarevox.pipeline.workers.pool import Death, Engine, Pool, Task
from rarevox.pipeline.workers.processes import Processes

BEGIN_SECONDS = 300.0


@dataclass(frozen=True)
class Answers:
    """What a service does with each scan, in plain values: a :class:`rarevox.pipeline.workers.job.Job`.

    Attributes:
        networks: that segment it.
        made: see :func:`rarevox.pipeline.inference.calls.kept.origin`.
        most_bytes: that may be uploaded.
        codes: that are given for structures.
    """

    networks: Networks
    made: Mapping[str, Any]
    most_bytes: int
    codes: Mapping[str, Coded] = field(default_factory=dict)

    def open(self) -> Desk:
        """Load the networks.

        Raises:
            RequestError: see :class:`rarevox.pipeline.inference.segment.Segmenter`.
        """
        from rarevox.pipeline.inference.calls.kept import origin
        from rarevox.pipeline.service.model import Model

        asked = self.networks
        if origin(asked.folders, asked.settings)["models"] != self.made["models"]:
            raise RequestError(f"{asked.runs[0]} holds another model than when the service began; start it again")
        return Desk(Model(asked.segmenter(), dict(self.made), self.most_bytes, codes=dict(self.codes)))


class Desk:
    """Answers one after the other.

    Args:
        model: makes them, see :class:`rarevox.pipeline.service.model.Model`.
    """

    def __init__(self, model: Callable[[Wanted], Answer]) -> None:
        self.model = model

    def work(self, tasks: Iterator[tuple[int, Any]], done: Done) -> None:
        """See :class:`rarevox.pipeline.workers.job.Worker`."""
        for number, wanted in tasks:
            done(number, self.answer(wanted))

    def answer(self, wanted: Wanted) -> Answer:
        """The answer to one; what the model fails at is the server's fault (500)."""
        try:
            return self.model(wanted)
        except Exception as error:  # one request must not end the others; what it was is not told to them
            return refusal(500, f"the server failed ({type(error).__name__})")


class Supervised:
    """Makes answers in a process of its own, which has the networks loaded; used by one thread.

    A process that ends without a word (a decoder that crashed, SIGKILL, lack of memory) is replaced, and the job done
    once more; one at which two have ended is refused, as is one that takes too long, whose process is ended.

    Args:
        answers: what it does.
        seconds: the longest that a job may take.
        begin_seconds: the longest that the loading of the networks may take.
        engine: makes what starts the process; by default a fork of a server that has imported the libraries.

    Attributes:
        replaced: how many processes have ended, and others taken their place.
    """

    def __init__(
        self,
        answers: Answers,
        seconds: float,
        *,
        begin_seconds: float = BEGIN_SECONDS,
        engine: Callable[[Answers], Engine] = lambda answers: Processes(answers, PRELOADED),
    ) -> None:
        self.answers, self.seconds, self.begin_seconds = answers, seconds, begin_seconds
        self._engine_of, self._numbers = engine, count()
        self._lock, self._closed = threading.Lock(), False
        self._trouble = ""
        self.replaced = 0
        self._begin()

    def open(self) -> None:
        """Start the process and wait until the networks are loaded.

        Raises:
            RequestError: they cannot be.
        """
        self._pool.open()

    def state(self) -> str:
        """``ok``, or why no job can be done at the moment."""
        return self._trouble or "ok"

    def __call__(self, job: Job) -> Answer:
        """The answer of a job, or why there is none: 422 where the scan ends the process, 503 where memory may be what
        lacks, or where no process can begin, as while the run is not there; the next job tries that again."""
        task = Task(next(self._numbers), job.wanted)
        for _ in range(2):  # what was wrong with the last process may be mended
            try:
                result = self._pool.do(task)
                break
            except Exception as error:  # the system may lack processes, or memory for one
                self._trouble = "the model cannot be loaded" if isinstance(error, RequestError) else reason_of(error)
                if not self._renew():
                    return refusal(503, "the service ends")
        else:
            return refusal(503, "the model cannot be loaded at the moment")
        self._trouble = ""
        if not isinstance(result, Death):
            return result if isinstance(result, Answer) else refusal(500, "the server failed")
        if result.late:
            return refusal(504, f"the scan was not done within {self.seconds:g} s and was ended")
        return refusal(503 if "memory" in result.reason else 422, f"two attempts ended early: {result.reason}")

    def close(self) -> None:
        """End the process, whatever it does, for good."""
        with self._lock:
            self._closed = True
            self.engine.close()

    def _renew(self) -> bool:
        """Begin with nothing, unless all is at its end."""
        with self._lock:
            if self._closed:
                return False
            self.engine.close()
            self._begin()
            return True

    def _begin(self) -> None:
        self.engine = self._engine_of(self.answers)
        limits = self.seconds, self.begin_seconds
        self._pool = Pool(self.engine, 1, seconds=limits[0], begin_seconds=limits[1], ended=self._ended)

    def _ended(self, reason: str) -> None:
        self.replaced += 1
        console.print(f"the process that computes {reason}; another one takes its place")
