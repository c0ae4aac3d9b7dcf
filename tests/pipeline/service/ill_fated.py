"""A service's worker that ends in ways that decoders do, at uploads that say so."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.service.jobs import Answer, Wanted
from rarevox.pipeline.service.worker import Answers, Desk


def _answer(wanted: Wanted) -> Answer:
    said = (wanted.folder / "body").read_text(encoding="ascii")
    if said == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if said == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if said == "hang":
        time.sleep(600)
    if said == "fails":
        raise ZeroDivisionError("a secret")
    if said == "once" and not (wanted.folder.parent / "once").exists():
        (wanted.folder.parent / "once").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return Answer(f"{said} by {os.getpid()}".encode(), "text/plain")


@dataclass(frozen=True)
class IllFated(Answers):
    """Needs no run; cannot be opened while the file named ``run`` is not there."""

    def open(self) -> Desk:
        """The worker."""
        if not Path(self.networks.runs[0]).exists():
            raise RequestError(f"{self.networks.runs[0]} is not there")
        if Path(self.networks.runs[0]).read_text(encoding="ascii") == "slow":
            time.sleep(600)
        return Desk(_answer)
