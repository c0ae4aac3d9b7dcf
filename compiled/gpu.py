"""Whether Triton's kernels can be used on this machine."""

from __future__ import annotations

import functools
import os
import shutil

try:
    import triton
except ImportError:
    triton = None


@functools.cache
def why_none() -> str | None:
    """Why no kernel of Triton can be used on this machine, in words; None where they can.

    Triton builds its launcher with a C compiler when a kernel is first called, in the middle of the first step.
    """
    if triton is None:
        return "Triton is not installed"
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "clang", "gcc") if name):
        return "Triton finds no C compiler (clang or gcc on the PATH, or the variable CC)"
    return None
