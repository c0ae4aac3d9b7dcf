"""The table of sums on a GPU in one kernel, and its gradient in a second: the logits are read twice, written once.

What the kernels do not know, or cannot do without Triton, is left to `rarevox.losses.sums.pieces`, whose results are
the same.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from rarevox.compiled.gpu import why_none
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
# Voxels of a tile at least, so that neighbouring threads load neighbouring voxels: a warp's width. Beyond 64 classes
# there are fewer, 2048 elements for twice the warps, so that a thread's share of the tile stays what it is for 64.
LEAST_VOXELS = 32
WARPS, WARPS_OF_MANY, ELEMENTS_OF_MANY, MANY_CLASSES = 4, 8, 2048, 64
LARGEST_CLASSES = 256
PROGRAMS_A_PROCESSOR = 8


def fits(volume: Volume, columns: Columns) -> bool:
    """Whether Triton works here and its kernels can make this table: logits of up to three axes on a GPU.

    >>> fits(Volume(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)), Columns())  # not on a GPU
    False
    """
    logits, labels = volume.flat, volume.labels
    return (
        logits.is_cuda
        and why_none() is None
        and known_to_kernels(volume, columns, LARGEST_CLASSES)
        and logits.ndim <= 5
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not labels.is_floating_point()
        and labels.dtype != torch.bool
    )


class TritonKernels(Backend):
    """One kernel each for the sums and for their gradient; where :func:`fits`."""

    def sums(self, volume: Volume) -> tuple[Tensor, Extremes | Tensor]:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        logits, problems, padded = volume.flat, volume.problems, triton.next_power_of_2(volume.classes)
        tile = _tile(padded, SUMS_ELEMENTS)
        programs = _programs(volume, tile)
        partial = torch.empty(problems, programs, KERNEL_COLUMNS, padded, dtype=torch.float32, device=logits.device)
        seen = torch.empty(problems, programs, SEEN, dtype=torch.float32, device=logits.device)
        inputs, options = _inputs(volume), _options(volume, self.columns, padded, tile)
        # Triton launches on the current device, which need not be that of the tensors.
        with _on(logits):
            kernels.sums_kernel[(programs, problems)](*inputs, partial, seen, *_places(volume), **options)
        sums = partial.to(torch.float64).sum(1)[..., : volume.classes].transpose(0, 1).contiguous()
        return with_all_columns(sums), _extremes(seen, volume.weight)

    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        padded = triton.next_power_of_2(volume.classes)
        tile = _tile(padded, GRADIENT_ELEMENTS if padded < MANY else GRADIENT_ELEMENTS_OF_MANY)
        grad = torch.empty_like(volume.logits)
        # Dense, in the order of the axes of the logits, even for a crop.
        place = grad.view(*grad.shape[:2], -1)
        of_sums = grad_sums[:KERNEL_COLUMNS].transpose(0, 1).to(torch.float32).contiguous()
        *before, ignore = _places(volume)
        inputs, options = _inputs(volume), _options(volume, self.columns, padded, tile)
        with _on(volume.flat):
            kernels.gradient_kernel[(_programs(volume, tile), volume.problems)](
                *inputs, of_sums, place, *before, *place.stride(), ignore, **options
            )
        return grad


def _tile(padded: int, elements: int) -> int:
    """Voxels of a tile."""
    if padded > MANY_CLASSES:
        return ELEMENTS_OF_MANY // padded
    return max(LEAST_VOXELS, elements // padded)


def _inputs(volume: Volume) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The logits (B, C, N), or as they came where no view is flat; labels, weight and entropy weight, contiguous.

    In place of a weight that is not there stand the labels, which no kernel reads as one.
    """
    labels = volume.labels.flatten(0, 1).contiguous()
    weights = [
        labels if one is None else one.flatten(0, 1).contiguous() for one in (volume.weight, volume.entropy_weight)
    ]
    return volume.flat, labels, weights[0], weights[1]


def _places(volume: Volume) -> tuple[int, ...]:
    """Number of voxels; strides of sample, class and the last three axes; sizes of the last two; the ignored label.

    Flat logits have one axis of voxels.
    """
    logits = volume.flat
    missing = 5 - logits.ndim
    sizes = (*(1,) * missing, *logits.shape[2:])
    strides = (*logits.stride()[:2], *(0,) * missing, *logits.stride()[2:])
    return (volume.labels.shape[-1], *strides, *sizes[1:], volume.ignore_index or 0)


def _options(volume: Volume, columns: Columns, padded: int, tile: int) -> dict[str, int | bool]:
    """What kernels are compiled for."""
    return {
        "GROUPS": volume.problems // volume.shape[0],
        "CLASSES": volume.classes,
        "PADDED": padded,
        "BLOCK": tile,
        "WEIGHTED": volume.weight is not None,
        "ENTROPY_WEIGHTED": volume.entropy_weight is not None,
        "IGNORING": volume.ignore_index is not None,
        "SIGMOID": volume.sigmoid,
        "SQUARES": columns.squares,
        "ENTROPY": columns.entropy,
        "CROP": volume.flat.ndim > 3,
        "num_warps": WARPS_OF_MANY if padded > MANY_CLASSES else WARPS,
    }


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """The device of a tensor as the current one; under Triton's interpreter tensors lie on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _extremes(seen: Tensor, weight: Tensor | None) -> Extremes | Tensor:
    """What the programs saw together, and the extremes of the weight; (6,) on a GPU, where nobody waits for them."""
    zero = torch.zeros((), dtype=torch.float32, device=seen.device)
    weight_low, weight_sum = (
        (zero, zero) if weight is None else (weight.amin().float(), weight.sum(dtype=torch.float32))
    )
    logit_sum, label_low, label_high = (
        seen[..., LOGIT_SUM].sum(),
        seen[..., LABEL_LOW].amin(),
        seen[..., LABEL_HIGH].amax(),
    )
    together = torch.stack((logit_sum, label_low, label_high, zero, weight_low, weight_sum))
    return together if together.is_cuda else Extremes(*together.tolist())


def _programs(volume: Volume, tile: int) -> int:
    """Programs a problem: enough to fill the device, each with several tiles, so that the partial sums stay few."""
    logits, voxels = volume.flat, volume.labels.shape[-1]
    processors = torch.cuda.get_device_properties(logits.device).multi_processor_count if logits.is_cuda else 2
    return max(1, min(-(-voxels // tile), -(-processors * PROGRAMS_A_PROCESSOR // volume.problems)))
