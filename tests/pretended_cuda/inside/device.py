"""What of `torch.cuda` asks a driver, answered for two devices that are not there."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses import fake_tensor
from torch.utils import _foreach_utils

DEVICES = 2
GIB = 2**30
PROCESSORS = 132  # of an H100


class Current:
    """The current device, as `torch.cuda.device` sets it; a launch of a kernel goes there."""

    index = 0


class Stream:
    """A stream that is never behind."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass


class Event:
    """A place in a stream: how much had been launched when it was recorded, as `ledger.Ledger` tells it."""

    launched: Any = staticmethod(lambda: 0)
    waited: Any = staticmethod(lambda behind: None)

    def __init__(self, *_: Any, **__: Any) -> None:
        self._at = 0

    def record(self, _: Any = None) -> None:
        self._at = Event.launched()

    def synchronize(self) -> None:
        Event.waited(Event.launched() - self._at)


@contextlib.contextmanager
def on_stream(_: Any) -> Iterator[None]:
    yield


def exchange(index: int) -> int:
    """Make another device the current one, and say which it was; negative numbers change nothing."""
    before = Current.index
    Current.index = index if index >= 0 else before
    return before


def set_device(device: Any) -> None:
    exchange(torch.device(device).index if not isinstance(device, int) else device)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in pinned memory, as far as `ledger.Ledger` is concerned."""
    tensor._pretended_pinned = True  # type: ignore[attr-defined]
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether a tensor, or one that it is a view of, is in pinned memory."""
    whole = tensor if tensor._base is None else tensor._base
    return any(getattr(one, "_pretended_pinned", False) for one in (tensor, whole))


def _apply(self: torch.nn.Module, convert: Any, recurse: bool = True) -> torch.nn.Module:
    """What `Module.to` does, with new parameters in place of the old: a fake tensor's data cannot be exchanged."""
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = convert(parameter.detach())
                module._parameters[name] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = convert(buffer)
    return self


def pretend() -> None:
    """Patch `torch.cuda`, once in a process that has loaded `hooks.cpp`."""
    state = torch.zeros(16, dtype=torch.uint8)
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: DEVICES,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "current_device": lambda: Current.index,
        "set_device": set_device,
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretended H100",
        "get_device_properties": lambda *_: types.SimpleNamespace(
            multi_processor_count=PROCESSORS, major=9, minor=0, total_memory=80 * GIB, name="pretended H100"
        ),
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda *_: (78 * GIB, 80 * GIB),
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        "get_rng_state": lambda *_: state,
        "get_rng_state_all": lambda: [state] * DEVICES,
        "set_rng_state": lambda *_, **__: None,
        "set_rng_state_all": lambda *_: None,
        "manual_seed": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "Stream": Stream,
        "Event": Event,
        "current_stream": Stream,
        "stream": on_stream,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    fake_tensor.init_gpu_context = lambda *_: None
    torch.Tensor.pin_memory = lambda self, *_, **__: pinned(self)  # type: ignore[method-assign]
    torch.Tensor.is_pinned = lambda self, *_, **__: is_pinned(self)  # type: ignore[method-assign]
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign]
    fake_tensor.FakeTensorMode.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
    # Optimisers and clipping take lists of tensors on a GPU, as long as they know the class of the tensors.
    if fake_tensor.FakeTensor not in _foreach_utils._foreach_supported_types:
        _foreach_utils._foreach_supported_types.append(fake_tensor.FakeTensor)
    torch.nn.Module._apply = _apply  # type: ignore[method-assign]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") is made on the CPU and sent
