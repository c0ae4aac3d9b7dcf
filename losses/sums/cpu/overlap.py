"""The table of sums on a CPU in one compiled pass, and its gradient in a second.

The logits are read twice and the gradient is written once. The softmax is made again for the gradient, which costs less
than the memory of keeping it. Without Numba, or for columns and types that the kernels do not know,
:mod:`rarevox.losses.sums.overlap` takes its PyTorch path, with the same results.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from rarevox.compiled import compiled_module, share_out
from rarevox.losses.sums.cpu.job import (
    CLASSES,
    COLUMNS,
    COUNTER,
    DEPTH,
    ENTROPY,
    EXTREMES,
    GRADIENT,
    GRADIENT_STRIDES,
    GROUPS,
    HALF_PRECISION,
    IGNORED,
    IGNORING,
    LABEL_KIND,
    LABELS,
    LOGIT_STRIDES,
    LOGITS,
    PROBLEMS,
    SEEN,
    SIGMOID,
    SQUARES,
    STRETCH,
    SUMS,
    WEIGHT,
    WIDTH,
)
from rarevox.losses.sums.table import CE, PP, PPR

LARGEST_CLASSES = 64
# Logits that a thread takes at a time: some hundred microseconds.
STRETCH_ELEMENTS = 1 << 17
# In the order of the kinds in `rarevox.losses.sums.cpu.job`.
_LABEL_KINDS = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32)


def kernels() -> ModuleType | None:
    """The compiled part; None without Numba, or where it can keep no compiled code."""
    return compiled_module("rarevox.losses.sums.cpu.kernels")


def compiled_fits(logits: Tensor, labels: Tensor, *, plain_columns: bool) -> bool:
    """Whether the kernels can make this table.

    Args:
        logits: (B, C, *spatial) with any strides; they take float32 and bfloat16 on the CPU.
        labels: the labels, whole numbers in an integer type or float32.
        plain_columns: no column beyond Σ and cross-entropy with the one voxel weight.

    >>> compiled_fits(torch.zeros(1, 2, 8).double(), torch.zeros(1, 1, 8), plain_columns=True)  # not in float64
    False
    """
    return (
        plain_columns
        and logits.device.type == labels.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.bfloat16)
        and logits.ndim <= 5
        and logits.shape[1] <= LARGEST_CLASSES
        and labels.dtype in _LABEL_KINDS
        and kernels() is not None
    )


def compiled_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    sigmoid: bool,
    ignore_index: int | None,
    squares: bool,
    entropy: bool,
) -> tuple[Tensor, list[float]]:
    """The sums (7, problems, K) in float64 and what :func:`rarevox.losses.sums.checks.check_values` reads.

    Args:
        logits: (B, C, *spatial), float32 or bfloat16 with any strides; a view with one to three spatial axes.
        labels: (problems, voxels), contiguous; a problem is a sample, or with ``sigmoid`` a logit of a sample.
        weight: (B, voxels), contiguous float32, or None.
        sigmoid, ignore_index, squares, entropy: as in :func:`rarevox.losses.overlap_sums`.
    """
    job = _job(logits, labels, weight, sigmoid=sigmoid, ignore_index=ignore_index, squares=squares, entropy=entropy)
    sums = np.zeros((labels.shape[0], _stretches(job), COLUMNS, job[CLASSES]))
    _run(job, sums.ctypes.data, seen := np.zeros((*sums.shape[:2], SEEN)))
    low, high, total = (reduce(seen, axis=(0, 1)) for reduce in (np.min, np.max, np.sum))
    extremes = (total[0], low[1], high[2], high[3], low[4], total[5])
    # NumPy adds the stretches in their order, whatever the number of threads.
    return torch.from_numpy(sums.sum(1).transpose(1, 0, 2).copy()), [float(value) for value in extremes]


def compiled_gradient(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    grad_sums: Tensor,
    grad: Tensor,
    *,
    sigmoid: bool,
    ignore_index: int | None,
    squares: bool,
    entropy: bool,
) -> None:
    """Write the gradient of the logits to ``grad``, shaped as they are, from that of the sums (7, problems, K)."""
    job = _job(logits, labels, weight, sigmoid=sigmoid, ignore_index=ignore_index, squares=squares, entropy=entropy)
    job[GRADIENT] = grad.data_ptr()
    job[GRADIENT_STRIDES : GRADIENT_STRIDES + 5] = _strides(grad)
    of_sums = grad_sums.transpose(0, 1).to(torch.float32, copy=True).contiguous()
    if not entropy:
        of_sums[:, CE] = 0
    if not squares:
        of_sums[:, PP : PPR + 1] = 0
    _run(job, of_sums.data_ptr(), np.zeros((labels.shape[0], _stretches(job), SEEN)))


def _strides(values: Tensor) -> list[int]:
    """The strides of sample, channel, depth, height and width; those of axes that are not there are 0."""
    sample, channel, *rest = values.stride()
    return [sample, channel, *[0] * (3 - len(rest)), *rest]


def _job(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    sigmoid: bool,
    ignore_index: int | None,
    squares: bool,
    entropy: bool,
) -> np.ndarray:
    """The job of `rarevox.losses.sums.cpu.kernels`, but for what it writes to and the counter."""
    classes = 2 if sigmoid else logits.shape[1]
    job = np.zeros(COUNTER, np.int64)
    job[[LOGITS, LABELS]] = logits.data_ptr(), labels.data_ptr()
    job[WEIGHT] = 0 if weight is None else weight.data_ptr()
    job[[PROBLEMS, GROUPS, CLASSES]] = labels.shape[0], labels.shape[0] // logits.shape[0], classes
    job[DEPTH : WIDTH + 1] = [1] * (5 - logits.ndim) + list(logits.shape[2:])
    job[STRETCH] = STRETCH_ELEMENTS // classes
    job[LOGIT_STRIDES : LOGIT_STRIDES + 5] = _strides(logits)
    job[HALF_PRECISION] = logits.dtype == torch.bfloat16
    job[LABEL_KIND] = _LABEL_KINDS.index(labels.dtype)
    job[[IGNORING, IGNORED]] = ignore_index is not None, ignore_index or 0
    job[[SIGMOID, SQUARES, ENTROPY]] = sigmoid, squares, entropy
    return job


def _stretches(job: np.ndarray) -> int:
    """Stretches of a problem."""
    return int(-(-job[DEPTH : WIDTH + 1].prod() // job[STRETCH]))


def _run(job: np.ndarray, sums: int, seen: np.ndarray) -> None:
    """Do a job with the sums, or their gradient, at an address."""
    job[[SUMS, EXTREMES]] = sums, seen.ctypes.data
    compiled = kernels()
    assert compiled is not None, "asked for without compiled_fits"
    share_out(compiled.work.address, job)
