"""Silence for libraries of DICOM, whose warnings quote what headers say: the patient's name among it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOGGERS = ("highdicom", "pydicom")
_lock = threading.Lock()
_inside = 0
_before: dict[str, Any] = {}


@contextmanager
def quietly() -> Iterator[None]:
    """Without warnings, and without what highdicom and pydicom log, from the first thread's coming to the last's going.

    Scans are read in one thread and written in another: what is restored by one must not let the other's words out.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _before["warnings"] = warnings.catch_warnings()
            _before["warnings"].__enter__()
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                _before[name] = logging.getLogger(name).level
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _before.pop("warnings").__exit__(None, None, None)
                for name in _LOGGERS:
                    logging.getLogger(name).setLevel(_before.pop(name))
