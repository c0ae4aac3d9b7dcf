"""The table of sums on a GPU in one kernel, and its gradient in a second: the logits are read twice, written once.

What the kernels do not know, or cannot do without Triton, is left to `rarevox.losses.sums.pieces`, whose results are
the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums.backend import Backend, known_to_kernels, with_all_columns
from rarevox.losses.sums.checks import LABEL_HIGH, LABEL_LOW, LOGIT_SUM, Extremes
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.table import KERNEL_COLUMNS, Columns
from rarevox.losses.sums.triton import kernels
from rarevox.losses.sums.triton.kernels import SEEN, triton

# Elements of one tile, classes padded to a power of two. The sums keep up to six accumulators an element: 8 elements a
# thread (four warps) take 63 to 105 registers for up to 16 classes (compute capability 9.0); 32 would spill.
SUMS_ELEMENTS = 1024
GRADIENT_ELEMENTS = 4096
# Voxels of a tile at least, so that neighbouring threads load neighbouring voxels: a warp's width.
LEAST_VOXELS = 32
PROGRAMS_A_PROCESSOR = 8


def fits(volume: Volume, columns: Columns) -> bool:
    """Whether Triton is there and its kernels can make this table: softmax, logits on a GPU that could be flattened.

    >>> fits(Volume(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)), Columns())  # not on a GPU
    False
    """
    logits, labels = volume.flat, volume.labels
    return (
        triton is not None
        and known_to_kernels(volume, columns)
        and not volume.sigmoid
        and logits.is_cuda
        and logits.ndim == 3
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not labels.is_floating_point()
        and labels.dtype != torch.bool
    )


class TritonKernels(Backend):
    """One kernel each for the sums and for their gradient; where :func:`fits`."""

    def sums(self, volume: Volume) -> tuple[Tensor, Extremes]:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        logits, labels, weight = _inputs(volume)
        samples, classes, voxels = logits.shape
        padded = triton.next_power_of_2(classes)
        block = max(LEAST_VOXELS, SUMS_ELEMENTS // padded)
        programs = _programs(logits, voxels, block)
        partial = torch.empty(samples, programs, KERNEL_COLUMNS, padded, dtype=torch.float32, device=logits.device)
        seen = torch.empty(samples, programs, SEEN, dtype=torch.float32, device=logits.device)
        kernels.sums_kernel[(programs, samples)](
            logits,
            labels,
            labels if weight is None else weight,
            partial,
            seen,
            voxels,
            *logits.stride(),
            0 if volume.ignore_index is None else volume.ignore_index,
            CLASSES=classes,
            PADDED=padded,
            BLOCK=block,
            WEIGHTED=weight is not None,
            IGNORING=volume.ignore_index is not None,
            SQUARES=self.columns.squares,
            ENTROPY=self.columns.entropy,
        )
        sums = partial.to(torch.float64).sum(1)[..., :classes].transpose(0, 1).contiguous()
        return with_all_columns(sums), _extremes(seen, weight)

    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        logits, labels, weight = _inputs(volume)
        samples, classes, voxels = logits.shape
        padded = triton.next_power_of_2(classes)
        block = max(LEAST_VOXELS, GRADIENT_ELEMENTS // padded)
        grad = torch.empty_like(volume.logits)
        place = grad.view(volume.shape)
        kernels.gradient_kernel[(_programs(logits, voxels, block), samples)](
            logits,
            labels,
            labels if weight is None else weight,
            grad_sums[:KERNEL_COLUMNS].transpose(0, 1).to(torch.float32).contiguous(),
            place,
            voxels,
            *logits.stride(),
            *place.stride(),
            0 if volume.ignore_index is None else volume.ignore_index,
            CLASSES=classes,
            PADDED=padded,
            BLOCK=block,
            WEIGHTED=weight is not None,
            IGNORING=volume.ignore_index is not None,
            SQUARES=self.columns.squares,
            ENTROPY=self.columns.entropy,
        )
        return grad


def _inputs(volume: Volume) -> tuple[Tensor, Tensor, Tensor | None]:
    """The logits (B, C, N) with any strides, the labels (B, N) and the weight (B, N), both contiguous."""
    weight = None if volume.weight is None else volume.weight[:, 0].contiguous()
    return volume.flat, volume.labels.flatten(0, 1).contiguous(), weight


def _extremes(seen: Tensor, weight: Tensor | None) -> Extremes:
    """What the programs saw together, and the extremes of the weight; the one place where the GPU is waited for."""
    zero = torch.zeros((), dtype=torch.float32, device=seen.device)
    weight_low, weight_sum = (zero, zero) if weight is None else (weight.amin().float(), weight.sum().float())
    logit_sum, label_low, label_high = (
        seen[..., LOGIT_SUM].sum(),
        seen[..., LABEL_LOW].amin(),
        seen[..., LABEL_HIGH].amax(),
    )
    return Extremes(*torch.stack((logit_sum, label_low, label_high, zero, weight_low, weight_sum)).tolist())


def _programs(logits: Tensor, voxels: int, block: int) -> int:
    """Programs a sample: enough to fill the device, each with several tiles, so that the partial sums stay few."""
    processors = torch.cuda.get_device_properties(logits.device).multi_processor_count if logits.is_cuda else 2
    return max(1, min(-(-voxels // block), -(-processors * PROGRAMS_A_PROCESSOR // logits.shape[0])))
