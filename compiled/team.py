"""Compiled work on the threads that PyTorch's own kernels run on.

PyTorch's CPU kernels run on a team of OpenMP threads that, after each kernel, wait for the next one busily. Other
threads would fight them for the cores for milliseconds after every kernel; so compiled work that stands between two
kernels goes to the same team.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

_state = {"forked": False, "told": False}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _state.update(forked=True))


def take_own_team() -> None:
    """Say in a forked process that its parent had never run anything on its team: this one's threads are then its own
    to make, and compiled work goes to all of them.

    True of the workers that a server forks which imports libraries and computes nothing. The library keeps the team in
    the thread that forks, so a parent that has used one leaves its child waiting for threads that are not there.
    """
    _state["forked"] = False


@functools.cache
def _team() -> ctypes._NamedFuncPointer | None:
    """``GOMP_parallel`` of the OpenMP library that PyTorch has loaded; None where it has another one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    # torch/lib or torch.libs; the system tells places without links, and homes and environments are often links.
    root = str(Path(torch.__file__).resolve().parent)
    paths = {line.split(maxsplit=5)[-1] for line in lines if "gomp" in line and root in line}
    if len(paths) != 1:
        return None
    function = ctypes.CDLL(paths.pop()).GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def why_alone() -> str | None:
    """Why compiled work runs on the calling thread alone, in a few words; None where all of PyTorch's threads do it."""
    if _state["forked"]:
        return "this process is a fork of one that had imported rarevox (start it by another method than fork)"
    if _team() is None:
        return "PyTorch's OpenMP library, GNU's beside it in the wheels for Linux, was not found"
    return None


def run_on_team(function: int, argument: int) -> None:
    """Call the C function at an address with one pointer, once on each of PyTorch's threads, and wait for all.

    Without the team it is called once, on the calling thread; so the function must share out the work itself, whatever
    the number of calls. A forked process is without, unless `take_own_team` was called in it: the library would wait
    for the threads of its parent.

    Args:
        function: the address of a ``void (*)(void *)`` that needs no Python.
        argument: the pointer that it is given.
    """
    team = None if _state["forked"] else _team()
    if team is None:
        # Elsewhere PyTorch comes with another library, and nobody can change that.
        unexpected = _state["forked"] or sys.platform == "linux"
        if unexpected and not _state["told"] and torch.get_num_threads() > 1:
            _state["told"] = True
            warnings.warn(f"compiled work runs on one thread: {why_alone()}", RuntimeWarning, stacklevel=2)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(argument)
    else:
        team(function, argument, torch.get_num_threads(), 0)


def share_out(function: int, values: Iterable[int], start: int = 0) -> None:
    """`run_on_team` of a function that takes pieces of work by their number until none is left.

    Args:
        function: the address of a ``void (*)(int64 *)``; its argument is ``values``, then the address of the number of
            the next piece (`rarevox.compiled.counter.take_next`).
        values: what it must know; addresses, sizes, the number of the last piece.
        start: the number of the first piece.
    """
    job = np.array([*values, 0, start], np.int64)
    job[-2] = job.ctypes.data + job.itemsize * (len(job) - 1)
    run_on_team(function, job.ctypes.data)
