"""Modules of kernels that Numba compiles: imported when first used, absent without Numba."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import zlib
from pathlib import Path
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


def has_compiler() -> bool:
    """Whether there is Numba, told without importing it."""
    return importlib.util.find_spec("numba") is not None


def source_stamp(*modules: ModuleType) -> int:
    """A number that changes with the source of the modules.

    Numba takes kept code for current while the one file that holds the function is; a function that is kept closes over
    the stamp of the modules from which it calls, and is compiled anew when they change.
    """
    return zlib.crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))
