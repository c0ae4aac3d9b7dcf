"""The table of sums on a GPU in one kernel, and its gradient in a second: the logits are read twice, written once.

Where Triton is missing, or for columns and layouts that the kernels do not know, :mod:`losses.overlap` takes its
PyTorch path, with the same results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

LARGEST_CLASSES = 64
# Elements of one tile, classes padded to a power of two: 32 a thread with four warps.
TILE_ELEMENTS = 4096
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
    """The sums (7, B, C) in float64 and what :func:`losses.checks.check_values` reads.

    Args:
        logits: (B, C, voxels) with any strides.
        labels: (B, voxels), contiguous integers.
        weight: (B, voxels), contiguous, or None.
        ignore_index, squares, entropy: as in :func:`losses.overlap_sums`.
    """
    samples, classes, voxels = logits.shape
    padded = triton.next_power_of_2(classes)
    block = max(32, TILE_ELEMENTS // padded)
    programs = _programs(logits, voxels, block)
    partial = torch.empty(samples, programs, COLUMNS, padded, dtype=torch.float32, device=logits.device)
    seen = torch.empty(samples, programs, 3, dtype=torch.float32, device=logits.device)
    _sums_kernel[(programs, samples)](
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
    block = max(32, TILE_ELEMENTS // padded)
    _gradient_kernel[(_programs(logits, voxels, block), samples)](
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


if triton is not None:

    @triton.jit
    def _load_tile(
        logits,
        labels,
        weight,
        first,
        voxels,
        stride_b,
        stride_c,
        stride_n,
        ignore,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
    ):
        """Logits (PADDED, BLOCK), 0 beyond the volume and the classes; labels and weights (BLOCK,)."""
        sample = tl.program_id(1).to(tl.int64)
        c = tl.arange(0, PADDED)
        n = (first + tl.arange(0, BLOCK)).to(tl.int64)
        there = n < voxels
        where_z = sample * stride_b + c[:, None].to(tl.int64) * stride_c + n[None, :] * stride_n
        z = tl.load(logits + where_z, mask=(c < CLASSES)[:, None] & there[None, :], other=0.0).to(tl.float32)
        y = tl.load(labels + sample * voxels + n, mask=there, other=0).to(tl.int32)
        if WEIGHTED:
            w = tl.load(weight + sample * voxels + n, mask=there, other=0.0).to(tl.float32)
        else:
            w = there.to(tl.float32)
        if IGNORING:
            counted = y != ignore
            w = tl.where(counted, w, 0.0)
            y = tl.where(counted, y, 0)
        return z, y, w

    @triton.jit
    def _softmax(z, CLASSES: tl.constexpr, PADDED: tl.constexpr):
        """Softmax over the classes, 0 in the padding, and the log of its denominator."""
        inside = (tl.arange(0, PADDED) < CLASSES)[:, None]
        shift = tl.max(tl.where(inside, z, float("-inf")), 0)
        exponential = tl.where(inside, tl.exp(z - shift[None, :]), 0.0)
        total = tl.sum(exponential, 0)
        return exponential / total[None, :], tl.log(total) + shift

    @triton.jit
    def _sums_kernel(
        logits,
        labels,
        weight,
        partial,
        seen,
        voxels,
        stride_b,
        stride_c,
        stride_n,
        ignore,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SQUARES: tl.constexpr,
        ENTROPY: tl.constexpr,
    ):
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        voxel_count = 0.0
        logit_sum = 0.0
        label_low = 0.0
        label_high = 0.0
        p_sum = tl.zeros([PADDED], tl.float32)
        r_sum = tl.zeros([PADDED], tl.float32)
        pr_sum = tl.zeros([PADDED], tl.float32)
        pp_sum = tl.zeros([PADDED], tl.float32)
        ppr_sum = tl.zeros([PADDED], tl.float32)
        ce_sum = tl.zeros([PADDED], tl.float32)
        for first in range(program * BLOCK, voxels, programs * BLOCK):
            z, y, w = _load_tile(
                logits,
                labels,
                weight,
                first,
                voxels,
                stride_b,
                stride_c,
                stride_n,
                ignore,
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                IGNORING,
            )
            p, log_total = _softmax(z, CLASSES, PADDED)
            r = y[None, :] == c[:, None]
            pw = p * w[None, :]
            voxel_count += tl.sum(w, 0)
            logit_sum += tl.sum(tl.sum(z, 1), 0)
            label_low = tl.minimum(label_low, tl.min(y, 0).to(tl.float32))
            label_high = tl.maximum(label_high, tl.max(y, 0).to(tl.float32))
            p_sum += tl.sum(pw, 1)
            r_sum += tl.sum(tl.where(r, w[None, :], 0.0), 1)
            pr_sum += tl.sum(tl.where(r, pw, 0.0), 1)
            if SQUARES:
                pp_sum += tl.sum(pw * p, 1)
                ppr_sum += tl.sum(tl.where(r, pw * p, 0.0), 1)
            if ENTROPY:
                ce_sum += tl.sum(tl.where(r, (log_total[None, :] - z) * w[None, :], 0.0), 1)
        row = tl.program_id(1) * programs + program
        out = partial + row * 7 * PADDED + c
        tl.store(out, tl.zeros([PADDED], tl.float32) + voxel_count)
        tl.store(out + PADDED, p_sum)
        tl.store(out + 2 * PADDED, r_sum)
        tl.store(out + 3 * PADDED, pr_sum)
        tl.store(out + 4 * PADDED, pp_sum)
        tl.store(out + 5 * PADDED, ppr_sum)
        tl.store(out + 6 * PADDED, ce_sum)
        tl.store(seen + row * 3, logit_sum)
        tl.store(seen + row * 3 + 1, label_low)
        tl.store(seen + row * 3 + 2, label_high)

    @triton.jit
    def _gradient_kernel(
        logits,
        labels,
        weight,
        grad_sums,
        grad,
        voxels,
        stride_b,
        stride_c,
        stride_n,
        grad_stride_b,
        grad_stride_c,
        grad_stride_n,
        ignore,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SQUARES: tl.constexpr,
        ENTROPY: tl.constexpr,
    ):
        program, programs = tl.program_id(0), tl.num_programs(0)
        sample = tl.program_id(1).to(tl.int64)
        c = tl.arange(0, PADDED)
        inside = c < CLASSES
        of = grad_sums + sample * 7 * CLASSES + c
        g_p = tl.load(of + CLASSES, mask=inside, other=0.0)
        g_pr = tl.load(of + 3 * CLASSES, mask=inside, other=0.0)
        g_pp = tl.load(of + 4 * CLASSES, mask=inside, other=0.0)
        g_ppr = tl.load(of + 5 * CLASSES, mask=inside, other=0.0)
        g_ce = tl.load(of + 6 * CLASSES, mask=inside, other=0.0)
        for first in range(program * BLOCK, voxels, programs * BLOCK):
            z, y, w = _load_tile(
                logits,
                labels,
                weight,
                first,
                voxels,
                stride_b,
                stride_c,
                stride_n,
                ignore,
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                IGNORING,
            )
            p, _ = _softmax(z, CLASSES, PADDED)
            r = y[None, :] == c[:, None]
            d = g_p[:, None] + tl.where(r, g_pr[:, None], 0.0)
            if SQUARES:
                d += 2 * p * (g_pp[:, None] + tl.where(r, g_ppr[:, None], 0.0))
            s = tl.sum(p * d, 0)
            result = p * (d - s[None, :])
            if ENTROPY:
                pull = tl.sum(tl.where(r, g_ce[:, None], 0.0), 0)
                result += pull[None, :] * (p - tl.where(r, 1.0, 0.0))
            n = (first + tl.arange(0, BLOCK)).to(tl.int64)
            place = sample * grad_stride_b + c[:, None].to(tl.int64) * grad_stride_c + n[None, :] * grad_stride_n
            stored = (result * w[None, :]).to(grad.dtype.element_ty)
            tl.store(grad + place, stored, mask=inside[:, None] & (n < voxels)[None, :])

else:
    _sums_kernel: Any = None
    _gradient_kernel: Any = None
