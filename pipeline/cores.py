"""The CPU cores that this process may use: those that it may run on, and what a container is given of their time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Of version 2: microseconds of all cores in each period (``max`` where there is no limit), and the period."""


def cores() -> int:
    """The cores that this process may use, at least one.

    Docker's ``--cpus 4`` and a limit of Kubernetes leave all cores of the machine to be seen and give the time of four:
    more threads than that are stopped for the rest of each period, all together.

    >>> cores() >= 1
    True
    """
    return min(_seen(), _given())


def share_threads() -> None:
    """Let libraries that are imported from here on compute on these cores alone, where a limit hides behind more of
    them and nobody has said otherwise (``OMP_NUM_THREADS``)."""
    if _given() < _seen():
        os.environ.setdefault("OMP_NUM_THREADS", str(_given()))


def _seen() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _given() -> int:
    """Whole cores of the limit, at least one; a large number where there is none."""
    with contextlib.suppress(OSError, ValueError):
        time, period = _LIMIT.read_text(encoding="ascii").split()
        return max(1, int(time) // int(period))
    return 1 << 20
