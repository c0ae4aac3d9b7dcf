"""What makes a command start and end sooner: the libraries under it hold a million objects."""

from __future__ import annotations

import atexit
import gc
import getpass
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries while Python does not look for cycles of garbage: looking through what is imported, over
    and over, takes a quarter of the time (PyTorch, MONAI and this package: 2.8 s instead of 3.8 s).

    >>> with importing():
    ...     import colorsys
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def name_the_user() -> None:
    """Give a user whose number the system has no name for (in a container, ``--user 1000``) one in ``LOGNAME``: MONAI
    asks for it when it is imported, and ends where there is none.

    >>> name_the_user()
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"user{os.getuid()}" if hasattr(os, "getuid") else "user"


def leaving_at_once() -> Callable[[int], None]:
    """Prepare the end of a program; to be called before anything large is imported.

    Returns:
        Tells the exit status. When all else that was to be done at the end (``atexit``) is done, the process then ends
        without taking its objects apart one by one, which takes 1.4 s after PyTorch and MONAI and which the system does
        at once. Of a program that ends in another way nothing changes.
    """
    told: list[int] = []

    def leave() -> None:
        if told:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(told[0])

    atexit.register(leave)  # the first that is registered is the last that is called
    return told.append
