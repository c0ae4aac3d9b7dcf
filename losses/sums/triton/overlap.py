"""The table of sums on a GPU in one kernel, and its gradient in a second: the logits are read twice, written once.

What the kernels do not know, or cannot do without Triton, is left to `rarevox.losses.sums.pieces`, whose results are
the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from typing import Any

import torch
from torch import Tensor

from rarevox.losses.sums.backend import Backend, known_to_kernels, with_all_columns
from rarevox.losses.sums.checks import LABEL_HIGH, LABEL_LOW, LOGIT_SUM, Extremes
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.table import KERNEL_COLUMNS, Columns
from rarevox.losses.sums.triton import kernels
from rarevox.losses.sums.triton.kernels import SEEN, triton

# Elements of one tile, classes padded to a power of two. The sums keep up to six accumulators an element: 8 elements a
# thread (four warps) take 90 to 128 registers for up to 32 classes, 225 for 64 (compute capability 9.0, uint8 labels).
# The gradient takes 32 elements a thread, and 16 from 32 classes on, where 32 would spill.
SUMS_ELEMENTS = 1024
GRADIENT_ELEMENTS, GRADIENT_ELEMENTS_OF_MANY, MANY = 4096, 2048, 32
# Voxels of a tile at least, so that neighbouring threads load neighbouring voxels: a warp's width.
LEAST_VOXELS = 32
PROGRAMS_A_PROCESSOR = 8


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


def fits(volume: Volume, columns: Columns) -> bool:
    """Whether Triton works here and its kernels can make this table: softmax, logits of up to three axes on a GPU.

    >>> fits(Volume(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)), Columns())  # not on a GPU
    False
    """
    logits, labels = volume.flat, volume.labels
    return (
        logits.is_cuda
        and why_none() is None
        and known_to_kernels(volume, columns)
        and not volume.sigmoid
        and logits.ndim <= 5
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not labels.is_floating_point()
        and labels.dtype != torch.bool
    )


class TritonKernels(Backend):
    """One kernel each for the sums and for their gradient; where :func:`fits`."""

    def sums(self, volume: Volume) -> tuple[Tensor, Extremes | Tensor]:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        logits, labels, weight = _inputs(volume)
        samples, classes, voxels = *logits.shape[:2], labels.shape[1]
        padded = triton.next_power_of_2(classes)
        block = max(LEAST_VOXELS, SUMS_ELEMENTS // padded)
        programs = _programs(logits, voxels, block)
        partial = torch.empty(samples, programs, KERNEL_COLUMNS, padded, dtype=torch.float32, device=logits.device)
        seen = torch.empty(samples, programs, SEEN, dtype=torch.float32, device=logits.device)
        # Triton launches on the current device, which need not be that of the tensors.
        with _on(logits):
            kernels.sums_kernel[(programs, samples)](
                logits,
                labels,
                labels if weight is None else weight,
                partial,
                seen,
                voxels,
                *_strides(logits),
                0 if volume.ignore_index is None else volume.ignore_index,
                CLASSES=classes,
                PADDED=padded,
                BLOCK=block,
                WEIGHTED=weight is not None,
                IGNORING=volume.ignore_index is not None,
                SQUARES=self.columns.squares,
                ENTROPY=self.columns.entropy,
                CROP=logits.ndim > 3,
            )
        sums = partial.to(torch.float64).sum(1)[..., :classes].transpose(0, 1).contiguous()
        return with_all_columns(sums), _extremes(seen, weight)

    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        logits, labels, weight = _inputs(volume)
        samples, classes, voxels = *logits.shape[:2], labels.shape[1]
        padded = triton.next_power_of_2(classes)
        elements = GRADIENT_ELEMENTS if padded < MANY else GRADIENT_ELEMENTS_OF_MANY
        block = max(LEAST_VOXELS, elements // padded)
        grad = torch.empty_like(volume.logits)
        place = grad.view(samples, classes, voxels)  # dense, in the order of the axes of the logits, even for a crop
        with _on(logits):
            kernels.gradient_kernel[(_programs(logits, voxels, block), samples)](
                logits,
                labels,
                labels if weight is None else weight,
                grad_sums[:KERNEL_COLUMNS].transpose(0, 1).to(torch.float32).contiguous(),
                place,
                voxels,
                *_strides(logits),
                *place.stride(),
                0 if volume.ignore_index is None else volume.ignore_index,
                CLASSES=classes,
                PADDED=padded,
                BLOCK=block,
                WEIGHTED=weight is not None,
                IGNORING=volume.ignore_index is not None,
                SQUARES=self.columns.squares,
                ENTROPY=self.columns.entropy,
                CROP=logits.ndim > 3,
            )
        return grad


def _inputs(volume: Volume) -> tuple[Tensor, Tensor, Tensor | None]:
    """The logits (B, C, N), or as they came where no view is flat; labels and weight (B, N), both contiguous."""
    weight = None if volume.weight is None else volume.weight[:, 0].contiguous()
    return volume.flat, volume.labels.flatten(0, 1).contiguous(), weight


def _strides(logits: Tensor) -> tuple[int, ...]:
    """Of sample, class and the last three axes, then the sizes of the last two; flat logits have one axis of voxels."""
    missing = 5 - logits.ndim
    spatial = logits.stride()[2:]
    sizes = (*(1,) * missing, *logits.shape[2:])
    return (*logits.stride()[:2], *(0,) * missing, *spatial, *sizes[1:])


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """The device of a tensor as the current one; under Triton's interpreter tensors lie on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _extremes(seen: Tensor, weight: Tensor | None) -> Extremes | Tensor:
    """What the programs saw together, and the extremes of the weight; (6,) on a GPU, where nobody waits for them."""
    zero = torch.zeros((), dtype=torch.float32, device=seen.device)
    weight_low, weight_sum = (zero, zero) if weight is None else (weight.amin().float(), weight.sum().float())
    logit_sum, label_low, label_high = (
        seen[..., LOGIT_SUM].sum(),
        seen[..., LABEL_LOW].amin(),
        seen[..., LABEL_HIGH].amax(),
    )
    together = torch.stack((logit_sum, label_low, label_high, zero, weight_low, weight_sum))
    return together if together.is_cuda else Extremes(*together.tolist())


def _programs(logits: Tensor, voxels: int, block: int) -> int:
    """Programs a sample: enough to fill the device, each with several tiles, so that the partial sums stay few."""
    processors = torch.cuda.get_device_properties(logits.device).multi_processor_count if logits.is_cuda else 2
    return max(1, min(-(-voxels // block), -(-processors * PROGRAMS_A_PROCESSOR // logits.shape[0])))
