"""Compiled work on the threads that PyTorch's own kernels run on.

PyTorch's CPU kernels run on a team of OpenMP threads that, after each kernel, wait for the next one busily. Other
threads would fight them for the cores for milliseconds after every kernel; so compiled work that stands between two
kernels goes to the same team.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch


@functools.cache
def _team() -> ctypes._NamedFuncPointer | None:
    """``GOMP_parallel`` of the OpenMP library that PyTorch has loaded; None where it has another one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    root = str(Path(torch.__file__).parent)  # torch/lib or torch.libs
    paths = {line.split(maxsplit=5)[-1] for line in lines if "gomp" in line and root in line}
    if len(paths) != 1:
        return None
    function = ctypes.CDLL(paths.pop()).GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def run_on_team(function: int, argument: int) -> None:
    """Call the C function at an address with one pointer, once on each of PyTorch's threads, and wait for all.

    Without the team it is called once, on the calling thread; so the function must share out the work itself, whatever
    the number of calls.

    Args:
        function: the address of a ``void (*)(void *)`` that needs no Python.
        argument: the pointer that it is given.
    """
    team = _team()
    if team is None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(argument)
    else:
        team(function, argument, torch.get_num_threads(), 0)
