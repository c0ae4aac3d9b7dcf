"""Where kernels of Triton are launched, and by how many programs."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def on(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """The device of a tensor as the current one, on which Triton launches; its interpreter works on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def channels_last(x: torch.Tensor) -> torch.memory_format:
    """The format of (B, C, *spatial), two or three axes, whose channels are innermost."""
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d


def processors(x: torch.Tensor) -> int:
    """Streaming multiprocessors of the device; two programs are enough for the interpreter to share work out."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
