"""Which device computes, in which precision and in which memory layout."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from rarevox.networks.cpu.ops import prefers_float32, use_fast_convolutions
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.reading.memory import available_bytes

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def select_device(name: str = "auto") -> torch.device:
    """The device called ``name``: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        RequestError: another name, or a CUDA device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"--device {name} is not known; expected auto, cpu, cuda or cuda:i")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise RequestError(f"--device {name} was asked for, and {found} found; `rarevox doctor` tells more")
    return device


def cpu_has_matrix_units() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in units of their own (AMX)."""
    return _torch_says("_is_amx_tile_supported")


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16).

    Without it, bfloat16 convolutions are emulated: measured 50 to 350 times slower than float32 on an AVX2 CPU.
    """
    return cpu_has_matrix_units() or _torch_says("_is_avx512_bf16_supported")


def _torch_says(probe: str) -> bool:
    """What a probe of the CPU says; False where this torch has no such probe."""
    return bool(getattr(torch.cpu, probe, bool)())


@dataclass(frozen=True)
class Precision:
    """The number format of convolutions; sums in losses and the weights themselves stay float32.

    Attributes:
        device: where the network runs.
        dtype: float32, bfloat16 or float16.
        tf32: on CUDA, float32 convolutions and products may round their factors to 10 bits (TF32).
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the network is called."""
        if self.device.type == "cuda":
            set_tf32(self.tf32)
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def needs_scaling(self) -> bool:
        """Whether gradients underflow without loss scaling (float16 only)."""
        return self.dtype == torch.float16


def set_tf32(allowed: bool) -> None:
    """Let CUDA's float32 convolutions and matrix products use TF32, or not; cuDNN does unless it is told.

    TF32 keeps 10 bits of each factor, so that a product is off by up to 2⁻¹⁰ of itself, as in float16.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def select_precision(
    name: str = "auto", device: torch.device | str = "cpu", network: torch.nn.Module | None = None
) -> Precision:
    """The format by name, or with ``auto`` the fastest one.

    On CUDA that is bfloat16 from Ampere on and float16 before; on CPUs bfloat16 with matrix units (AMX) and float32
    without hardware for it. With AVX512-BF16 alone it depends on the network: bfloat16 is twice as fast as float32,
    but the float32 kernels of HighResNet and DeepMedic (3D) do an eighth of the multiplications. There training steps
    of these take 1.2 to 1.9 times and whole scans 1.9 to 2.7 times as long in bfloat16; on slices, and in MONAI's UNet,
    0.5 to 0.9 times (two cores, Zen 4).

    Args:
        name: auto, float32, tf32 (float32 whose convolutions round their factors to 10 bits, on CUDA), bfloat16 or
            float16.
        device: where it computes.
        network: what it computes, for ``auto``.

    Raises:
        RequestError: an unknown name, or float16 or tf32 on a CPU.
    """
    device = torch.device(device)
    if name == "auto":
        if device.type == "cuda":
            return Precision(
                device, torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
            )
        fast = cpu_has_bfloat16() and (cpu_has_matrix_units() or network is None or not prefers_float32(network))
        return Precision(device, torch.bfloat16 if fast else torch.float32)
    if name not in PRECISIONS:
        raise RequestError(f"precision is {name!r}; expected auto, {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise RequestError("precision float16 trains on CUDA only; choose auto, bfloat16 or float32 for the CPU")
    if name == "tf32" and device.type == "cpu":
        raise RequestError("precision tf32 is of CUDA devices; choose auto, bfloat16 or float32 for the CPU")
    if name == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _tell_that_it_is_emulated()
    return Precision(device, PRECISIONS[name], tf32=name == "tf32")


@functools.cache
def _tell_that_it_is_emulated() -> None:
    """Once a process: nothing else tells why a step takes minutes."""
    console.say(
        "[yellow]emulated[/yellow]: precision is bfloat16, which this CPU does not multiply in hardware; steps and "
        "scans take 50 to 350 times as long as in float32, which precision#name=auto takes here"
    )


def channels_last(spatial_dims: int) -> torch.memory_format:
    """The memory format in which convolutions of this many axes run fastest.

    >>> channels_last(3)
    torch.channels_last_3d
    """
    return torch.channels_last_3d if spatial_dims == 3 else torch.channels_last


def place_network(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a network to its device, the weights of its convolutions (of two axes or three) channels-last.

    A network from elsewhere, MONAI's say, gets `rarevox.networks.cpu.convolution` for its plain 3D convolutions.
    """
    network = use_fast_convolutions(network).to(device)
    if device.type == "cpu":
        keep_freed_memory()
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            parameter.data = parameter.data.contiguous(memory_format=channels_last(parameter.ndim - 2))
    return network


@functools.cache
def keep_freed_memory(*, large: bool = False) -> bool:
    """Let this process keep memory that it frees for its next tensors, where the C library is glibc; whether it does.

    glibc gives blocks above a threshold back to the system and takes them again page by page: 45,000 page faults for a
    training step of HighResNet on 32×48×32 voxels, a tenth to a quarter of its time. Afterwards blocks of up to 32
    MB, the most that glibc allows, are kept; 800 a step are left. The most memory in use is the same.

    Args:
        large: keep larger blocks too, for work that takes the same ones again and again, as training does: a step on
            four such patches takes 3.0 s in place of 3.6 s. What came and went only once would be kept as well.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    kept = bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 2**31 - 1))
    return bool(mallopt(mmap_max, 0)) if kept and large else kept


_set_aside: weakref.WeakKeyDictionary[object, tuple[torch.device, int]] = weakref.WeakKeyDictionary()


def unused_bytes(device: torch.device) -> int:
    """What PyTorch's allocator keeps of freed memory on a CUDA device; 0 elsewhere.

    >>> unused_bytes(torch.device("cpu"))
    0
    """
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def set_aside(owner: object, device: torch.device, count: int) -> None:
    """Memory that the allocator counts as unused and only ``owner`` can use, a recorded graph say, while that lives.

    Args:
        owner: that may be referred to weakly.
        device: where the memory lies.
        count: of bytes; none where it is not above 0.
    """
    if count > 0:
        _set_aside[owner] = (device, count)


def _is(one: torch.device, other: torch.device) -> bool:
    """Whether two names may be one device's: without a number it is the current one."""
    return one.type == other.type and (None in (one.index, other.index) or one.index == other.index)


def available_memory_gb(device: torch.device) -> float:
    """Memory that can be taken now, in GB (10⁹ bytes): free device memory, or
    :func:`rarevox.transforms.reading.memory.available_bytes`; 4 GB where the system does not say (not Linux).
    """
    if device.type == "cuda":  # with what PyTorch's allocator keeps of freed memory, for its next tensors
        kept = unused_bytes(device) - sum(count for where, count in _set_aside.values() if _is(where, device))
        return (torch.cuda.mem_get_info(device)[0] + kept) / 1e9
    available = available_bytes()
    return 4.0 if math.isinf(available) else available / 1e9


def release_memory(device: torch.device) -> None:
    """Give back what nothing uses any more, after memory ran out: objects in circles, caches, freed blocks."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
