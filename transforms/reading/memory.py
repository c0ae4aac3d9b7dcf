"""How much memory a volume may take."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path


def available_bytes() -> float:
    """Memory that can be taken now: the machine's, less where a control group or this process has a limit.

    Infinite where the system does not say (not Linux).

    >>> available_bytes() > 0
    True
    """
    return max(0.0, min(_of_machine(), _of_group(), _of_process()))


def _of_machine() -> float:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return math.inf


def _of_group() -> float:
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = float((group / "memory.max").read_text(encoding="ascii"))  # "max", where there is none, is no number
        used = float((group / "memory.current").read_text(encoding="ascii"))
        cached = _inactive_file_bytes(group)
        return limit - used + cached
    return math.inf


def _inactive_file_bytes(group: Path) -> float:
    """File pages that the group counts as used and gives back when asked: what was just read is among them."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return 0.0


def _of_process() -> float:
    """What ``ulimit -v`` leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = float(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            return limit - pages * resource.getpagesize()
    return math.inf
