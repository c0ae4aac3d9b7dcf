"""Modules of kernels that Numba compiles: imported when first used, absent without Numba."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def compiled_module(name: str) -> ModuleType | None:
    """The module of that name; None without Numba, or where it can keep no compiled code.

    >>> compiled_module("compiled.a_package_that_is_missing") is None
    True
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError):
        return None
