"""Lack of memory, by whichever library's words."""

from __future__ import annotations

import errno
import re

_SHORT = re.compile(
    r"DefaultCPUAllocator|could not create a (primitive|memory)|std::bad_alloc|ailed to allocate memory"
    # cuDNN, cuBLAS, cuSOLVER and the driver allocate for themselves; cuDNN's plans may all need more than there is.
    r"|ALLOC(ATION)?_FAILED|out of memory|nable to find an engine to execute this computation"
    r"|can't start new thread|[Cc]annot allocate memory"  # a thread's stack is memory too
)
"""The words of Python, PyTorch, oneDNN, the C++ library, ITK, and of CUDA's libraries and driver."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it comes from, says that memory was exhausted, on a device or on the CPU.

    >>> import torch
    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")), is_out_of_memory(RuntimeError("a bad shape"))
    (True, False)
    >>> is_out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN
    True
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError) or type(found).__name__ == "OutOfMemoryError":  # the latter is PyTorch's
            return True
        if isinstance(found, OSError) and found.errno == errno.ENOMEM:
            return True
        if isinstance(found, (RuntimeError, ImportError)) and _SHORT.search(str(found)):
            return True
        found = found.__cause__
    return False
