"""The table of sums on a CPU in one compiled pass, and its gradient in a second.

The logits are read twice and the gradient is written once. The softmax is made again for the gradient, which costs less
than the memory of keeping it. What the kernels do not know, or cannot do without Numba, is left to
`rarevox.losses.sums.pieces`, whose results are the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rarevox.compiled import compiled_module, share_out
from rarevox.losses.sums.backend import Backend, known_to_kernels, with_all_columns
from rarevox.losses.sums.checks import (
    LABEL_FRACTION,
    LABEL_HIGH,
    LABEL_LOW,
    LOGIT_SUM,
    WEIGHT_LOW,
    WEIGHT_SUM,
    Extremes,
)
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.cpu.job import (
    BFLOAT16,
    BLOCK,
    CLASSES,
    COLUMNS,
    COUNTER,
    DEPTH,
    ENTROPY,
    EXTREMES,
    FLOAT32,
    GRADIENT,
    GRADIENT_STRIDES,
    GROUPS,
    IGNORED,
    IGNORING,
    INT16,
    INT32,
    INT64,
    LABEL_KIND,
    LABELS,
    LOGIT_STRIDES,
    LOGITS,
    PROBLEMS,
    SEEN,
    SIGMOID,
    SQUARES,
    STRIDES,
    SUMS,
    UINT8,
    WEIGHT,
    WIDTH,
)
from rarevox.losses.sums.table import CE, PP, PPR, Columns

LARGEST_CLASSES = 64
# Logits that a thread takes at a time: some hundred microseconds.
BLOCK_ELEMENTS = 1 << 17
_LABEL_KINDS = {
    torch.uint8: UINT8,
    torch.int16: INT16,
    torch.int32: INT32,
    torch.int64: INT64,
    torch.float32: FLOAT32,
}
_KERNELS = "rarevox.losses.sums.cpu.kernels"


def fits(volume: Volume, columns: Columns) -> bool:
    """Whether the kernels are there and can make this table: float32 or bfloat16 logits on the CPU.

    >>> fits(Volume(torch.zeros(1, 2, 8).double(), torch.zeros(1, 1, 8)), Columns())  # not in float64
    False
    """
    logits, labels = volume.logits, volume.labels
    return (
        known_to_kernels(volume, columns, LARGEST_CLASSES)
        and volume.entropy_weight is None
        and logits.device.type == labels.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.bfloat16)
        and logits.ndim <= 5
        and labels.dtype in _LABEL_KINDS
        and are_there()
    )


def are_there() -> bool:
    """Whether the kernels are there: Numba is, and can build them."""
    return compiled_module(_KERNELS) is not None


class CompiledKernels(Backend):
    """One compiled pass each for the sums and for their gradient, on PyTorch's own threads; where :func:`fits`."""

    def sums(self, volume: Volume) -> tuple[Tensor, Extremes]:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        job, inputs = _job(volume, self.columns)
        blocks = _blocks(job)
        sums = np.zeros((volume.problems, blocks, COLUMNS, volume.classes))
        seen = np.zeros((volume.problems, blocks, SEEN))
        _run(job, inputs, sums.ctypes.data, seen)
        low, high, total = (reduce(seen, axis=(0, 1)) for reduce in (np.min, np.max, np.sum))
        extremes = Extremes(
            logit_sum=float(total[LOGIT_SUM]),
            label_low=float(low[LABEL_LOW]),
            label_high=float(high[LABEL_HIGH]),
            label_fraction=float(high[LABEL_FRACTION]),
            weight_low=float(low[WEIGHT_LOW]),
            weight_sum=float(total[WEIGHT_SUM]),
        )
        # NumPy adds the blocks in their order, whatever the number of threads.
        stacked = torch.from_numpy(sums.sum(1).transpose(1, 0, 2).copy())
        return with_all_columns(stacked), extremes

    def gradient(self, volume: Volume, grad_sums: Tensor) -> Tensor:
        """See :class:`rarevox.losses.sums.backend.Backend`."""
        grad = torch.empty_like(volume.logits)
        place = grad.view(volume.shape)
        job, inputs = _job(volume, self.columns)
        job[GRADIENT] = place.data_ptr()
        job[GRADIENT_STRIDES : GRADIENT_STRIDES + STRIDES] = _strides(place)
        of_sums = grad_sums[:COLUMNS].transpose(0, 1).to(torch.float32, copy=True).contiguous()
        # The kernel applies all columns; those that were not made have no say, whatever comes back for their zeros.
        if not self.columns.entropy:
            of_sums[:, CE] = 0
        if not self.columns.squares:
            of_sums[:, [PP, PPR]] = 0
        _run(job, inputs, of_sums.data_ptr(), np.zeros((volume.problems, _blocks(job), SEEN)))
        return grad


def _strides(values: Tensor) -> list[int]:
    """The strides of sample, channel, depth, height and width; those of axes that are not there are 0."""
    sample, channel, *rest = values.stride()
    return [sample, channel, *[0] * (3 - len(rest)), *rest]


def _job(volume: Volume, columns: Columns) -> tuple[np.ndarray, list[Tensor]]:
    """The job of `rarevox.losses.sums.cpu.kernels`, but for what it writes to and the counter; and the tensors whose
    addresses stand in it, which must live until it is done.
    """
    logits, labels = volume.flat, volume.labels.flatten(0, 1).contiguous()  # labels (problems, N)
    weight = torch.empty(0) if volume.weight is None else volume.weight[:, 0].contiguous().float()  # (B, N)
    job = np.zeros(COUNTER, np.int64)
    job[[LOGITS, LABELS]] = logits.data_ptr(), labels.data_ptr()
    job[WEIGHT] = 0 if volume.weight is None else weight.data_ptr()
    job[[PROBLEMS, GROUPS, CLASSES]] = volume.problems, volume.problems // logits.shape[0], volume.classes
    job[DEPTH : WIDTH + 1] = [1] * (5 - logits.ndim) + list(logits.shape[2:])
    job[BLOCK] = BLOCK_ELEMENTS // volume.classes
    job[LOGIT_STRIDES : LOGIT_STRIDES + STRIDES] = _strides(logits)
    job[BFLOAT16] = logits.dtype == torch.bfloat16
    job[LABEL_KIND] = _LABEL_KINDS[labels.dtype]
    job[[IGNORING, IGNORED]] = volume.ignore_index is not None, volume.ignore_index or 0
    job[[SIGMOID, SQUARES, ENTROPY]] = volume.sigmoid, columns.squares, columns.entropy
    return job, [logits, labels, weight]


def _blocks(job: np.ndarray) -> int:
    """Blocks of a problem."""
    return int(-(-job[DEPTH : WIDTH + 1].prod() // job[BLOCK]))


def _run(job: np.ndarray, inputs: list[Tensor], sums: int, seen: np.ndarray) -> None:
    """Do a job with the sums, or their gradient, at an address; ``inputs`` are held until it is done."""
    job[[SUMS, EXTREMES]] = sums, seen.ctypes.data
    compiled = compiled_module(_KERNELS)
    assert compiled is not None, "asked for where `fits` says no"
    share_out(compiled.work.address, job)
