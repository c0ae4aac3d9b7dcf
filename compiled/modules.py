"""Modules of kernels that Numba compiles: imported when first used; only without Numba is there a way around them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
import zlib
from pathlib import Path
from types import ModuleType


@functools.cache
def compiled_module(name: str) -> ModuleType | None:
    """The module of that name; None where `why_plain` tells a reason, and then PyTorch's own operations are taken.

    Raises:
        Exception: whatever importing the module raised. Numba is there and has a place, so that is a fault of this
            program, which must not turn into a slow path that nobody notices.

    >>> (compiled_module("rarevox.compiled.team") is None) == (why_plain() is not None)
    True
    """
    return importlib.import_module(name) if why_plain() is None else None


def has_compiler() -> bool:
    """Whether there is Numba, told without importing it."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def why_plain() -> str | None:
    """Why no compiled kernel can be taken, in a few words; None where they can.

    There are four reasons: no Numba; a Numba that does not import beside this NumPy or Python, which is warned about;
    one that was told not to compile; and no place to keep compiled code, without which every process would compile for
    minutes.
    """
    if not has_compiler():
        return "Numba is not installed"
    try:
        numba = importlib.import_module("numba")
    except (ImportError, OSError) as error:  # OSError: llvmlite's library does not load
        reason = f"Numba is installed and does not import ({error})"
        warnings.warn(f"{reason}: PyTorch's slower operations are taken", RuntimeWarning, stacklevel=2)
        return reason
    if numba.config.DISABLE_JIT:
        return "Numba is told not to compile (NUMBA_DISABLE_JIT is set)"
    try:
        importlib.import_module("rarevox.compiled.probe")
    except RuntimeError:
        return "Numba finds no folder that it can keep compiled code in (set NUMBA_CACHE_DIR to one)"
    return None


def source_stamp(*modules: ModuleType) -> int:
    """A number that changes with the source of the modules.

    Numba takes kept code for current while the one file that holds the function is; a function that is kept closes over
    the stamp of the modules from which it calls, and is compiled anew when they change.
    """
    return zlib.crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))
