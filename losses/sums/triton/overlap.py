"""The table of sums on a GPU in one kernel, and its gradient in a second: the logits are read twice, written once.

Where Triton is missing, or for columns and layouts that the kernels do not know, :mod:`rarevox.losses.sums.overlap`
takes its PyTorch path, with the same results.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums.triton import kernels
from rarevox.losses.sums.triton.kernels import triton

LARGEST_CLASSES = 64
# Elements of one tile, classes padded to a power of two. The sums keep up to six accumulators an element: 8 elements a
# thread (four warps) take 63 to 105 registers for up to 16 classes (compute capability 9.0); 32 would spill.
SUMS_ELEMENTS = 1024
GRADIENT_ELEMENTS = 4096
PROGRAMS_A_PROCESSOR = 8
# Columns of the kernels, in the order of SumTable.
COLUMNS = 7


def fused_fits(logits: Tensor, labels: Tensor, *, plain_columns: bool) -> bool:
    """Whether the kernels can make this table.

    Args:
        logits: (B, C, voxels), the flattened view, or a view that would not flatten.
        labels: the labels.
        plain_columns: softmax, and no column beyond Σ and cross-entropy with the one voxel weight.

    >>> fused_fits(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8), plain_columns=True)  # not on a GPU
    False
    """
    return (
        triton is not None
        and plain_columns
        and logits.is_cuda
        and logits.ndim == 3
        and logits.shape[1] <= LARGEST_CLASSES
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not labels.is_floating_point()
        and labels.dtype != torch.bool
    )


def fused_sums(
    logits: Tensor, labels: Tensor, weight: Tensor | None, *, ignore_index: int | None, squares: bool, entropy: bool
) -> tuple[Tensor, list[float]]:
    """The sums (7, B, C) in float64 and what :func:`rarevox.losses.sums.checks.check_values` reads.

    Args:
        logits: (B, C, voxels) with any strides.
        labels: (B, voxels), contiguous integers.
        weight: (B, voxels), contiguous, or None.
        ignore_index, squares, entropy: as in :func:`rarevox.losses.overlap_sums`.
    """
    samples, classes, voxels = logits.shape
    padded = triton.next_power_of_2(classes)
    block = max(32, SUMS_ELEMENTS // padded)
    programs = _programs(logits, voxels, block)
    partial = torch.empty(samples, programs, COLUMNS, padded, dtype=torch.float32, device=logits.device)
    seen = torch.empty(samples, programs, 3, dtype=torch.float32, device=logits.device)
    kernels.sums_kernel[(programs, samples)](
        logits,
        labels,
        labels if weight is None else weight,
        partial,
        seen,
        voxels,
        *logits.stride(),
        0 if ignore_index is None else ignore_index,
        CLASSES=classes,
        PADDED=padded,
        BLOCK=block,
        WEIGHTED=weight is not None,
        IGNORING=ignore_index is not None,
        SQUARES=squares,
        ENTROPY=entropy,
    )
    sums = partial.to(torch.float64).sum(1)[..., :classes].transpose(0, 1).contiguous()
    zero = torch.zeros((), device=logits.device)
    weight_low, weight_sum = (zero, zero) if weight is None else (weight.amin().float(), weight.sum().float())
    extremes = (seen[..., 0].sum(), seen[..., 1].amin(), seen[..., 2].amax(), zero, weight_low, weight_sum)
    return sums, torch.stack(extremes).tolist()


def fused_gradient(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    grad_sums: Tensor,
    grad: Tensor,
    *,
    ignore_index: int | None,
    squares: bool,
    entropy: bool,
) -> None:
    """Write the gradient of the logits to ``grad`` (B, C, voxels), from the gradient (7, B, C) of the sums."""
    samples, classes, voxels = logits.shape
    padded = triton.next_power_of_2(classes)
    block = max(32, GRADIENT_ELEMENTS // padded)
    kernels.gradient_kernel[(_programs(logits, voxels, block), samples)](
        logits,
        labels,
        labels if weight is None else weight,
        grad_sums.transpose(0, 1).to(torch.float32).contiguous(),
        grad,
        voxels,
        *logits.stride(),
        *grad.stride(),
        0 if ignore_index is None else ignore_index,
        CLASSES=classes,
        PADDED=padded,
        BLOCK=block,
        WEIGHTED=weight is not None,
        IGNORING=ignore_index is not None,
        SQUARES=squares,
        ENTROPY=entropy,
    )


def _programs(logits: Tensor, voxels: int, block: int) -> int:
    """Programs a sample: enough to fill the device, each with several tiles, so that the partial sums stay few."""
    processors = torch.cuda.get_device_properties(logits.device).multi_processor_count if logits.is_cuda else 2
    return max(1, min(-(-voxels // block), -(-processors * PROGRAMS_A_PROCESSOR // logits.shape[0])))
