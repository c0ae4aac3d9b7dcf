"""One model and one bounded queue: jobs are run one after the other, by one thread."""

from __future__ import annotations

import json
import queue
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
OUTPUTS = {
    "labels": "application/gzip",
    "volumes": "application/json",
    "seg": "application/dicom",
    "report": "application/dicom",
}
"""What can be asked for, and its type."""
BODY = "body"
"""The file of a job as it was sent."""
KEPT_SECONDS = 600.0
"""So long the result of a job that nobody waits for is there to be fetched."""


@dataclass
class Answer:
    """What is sent back: a body and its type, or a refusal."""

    body: bytes
    media_type: str
    status: int = 200
    name: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a job asks for, in plain values.

    Attributes:
        folder: of its files.
        output: one of ``OUTPUTS``.
        rules: which series of an archive are meant, one for each channel.
    """

    folder: Path
    output: str
    rules: tuple[str, ...] = ()


@dataclass
class Job:
    """A scan that waits, is computed, or was.

    Attributes:
        folder: of its files, removed when it ends.
        output: what is asked for.
        rules: which series of an archive are meant, one for each channel.
        identity: unguessable.
        state: one of the five.
        answer: when it has ended, unless it was cancelled.
        ended: done then.
    """

    folder: Path
    output: str
    rules: tuple[str, ...] = ()
    identity: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = QUEUED
    answer: Answer | None = None
    began: float | None = None
    finished: float | None = None
    made: float = field(default_factory=time.monotonic)
    ended: Future[None] = field(default_factory=Future)

    @property
    def wanted(self) -> Wanted:
        """What it asks for."""
        return Wanted(self.folder, self.output, self.rules)


def refusal(status: int, reason: str) -> Answer:
    """An answer that says why there is none."""
    return Answer(json.dumps({"error": reason}, ensure_ascii=False).encode() + b"\n", "application/json", status)


class Full(Exception):
    """No place is left in the queue."""


class Jobs:
    """Places, the queue, the thread that works it off, and what became of jobs.

    A place is taken before a body is read, so that nobody uploads in vain, and given back when the job ends.

    Args:
        work: makes the answer of a job; what it raises is the server's fault, and told as status 500.
        places: jobs that may be there at once, the one that is computed among them.
        done: is told of every job that ended.
    """

    def __init__(
        self, work: Callable[[Job], Answer], places: int, done: Callable[[Job], Any] = lambda job: None
    ) -> None:
        self._work, self.places, self._done = work, places, done
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._taken = 0
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="rarevox-model", daemon=True)
        self._thread.start()

    def take_place(self) -> None:
        """Take a place.

        Raises:
            Full: there is none.
        """
        with self._lock:
            if self._taken >= self.places:
                raise Full
            self._taken += 1

    def give_back(self) -> None:
        """Give back a place for which no job came."""
        with self._lock:
            self._taken -= 1

    def submit(self, job: Job) -> None:
        """Queue a job whose place was taken."""
        with self._lock:
            self._waiting[job.identity] = job
        self._queue.put(job)

    def cancel(self, job: Job) -> None:
        """Nobody wants the result any more: a job that has not begun will not; of another the result is dropped."""
        with self._lock:
            if job.state in (QUEUED, RUNNING):
                job.state = CANCELLED
            self._ended.pop(job.identity, None)

    def find(self, identity: str) -> Job | None:
        """A job that is there, or ended and was not yet forgotten."""
        self._forget()
        with self._lock:
            return self._waiting.get(identity) or self._ended.get(identity)

    def position(self, job: Job) -> int:
        """How many jobs are computed before this one."""
        with self._lock:
            return list(self._waiting).index(job.identity) if job.identity in self._waiting else 0

    @property
    def taken(self) -> int:
        """Places that are taken."""
        with self._lock:
            return self._taken

    def close(self, seconds: float = 5.0) -> None:
        """End the thread after the job that it computes; those that wait are cancelled."""
        with self._lock:
            for job in self._waiting.values():
                if job.state == QUEUED:
                    job.state = CANCELLED
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                self._one(job)
            finally:
                shutil.rmtree(job.folder, ignore_errors=True)
                with self._lock:
                    self._waiting.pop(job.identity, None)
                    self._taken -= 1
                    if job.state != CANCELLED:
                        self._ended[job.identity] = job
                job.finished = time.monotonic()
                self._done(job)
                if job.ended.set_running_or_notify_cancel():
                    job.ended.set_result(None)
                self._forget()
                del job

    def _one(self, job: Job) -> None:
        with self._lock:
            if job.state != QUEUED:
                return
            job.state, job.began = RUNNING, time.monotonic()
        try:
            answer = self._work(job)
        except Exception as error:  # one request must not end the service; what it was is not told to others
            answer = refusal(500, f"the server failed ({type(error).__name__})")
        with self._lock:
            if job.state == RUNNING:
                job.answer, job.state = answer, DONE if answer.status == 200 else FAILED

    def _forget(self) -> None:
        """Old results, and of many the oldest."""
        before = time.monotonic() - KEPT_SECONDS
        with self._lock:
            while self._ended:
                oldest = next(iter(self._ended.values()))
                if len(self._ended) <= self.places and (oldest.finished is None or oldest.finished > before):
                    break
                self._ended.popitem(last=False)
