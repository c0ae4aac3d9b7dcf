"""The table of sums by differentiable operations alone, for programs that are recorded and run on other numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rarevox.compiled import becomes_program
from rarevox.losses.sums.chunks import WITHOUT_FLOAT64
from rarevox.losses.sums.table import Columns, SumTable


def plain_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    sigmoid: bool,
    ignore_index: int | None,
    entropy_weight: Tensor | None,
    columns: Columns,
) -> SumTable:
    """What :func:`rarevox.losses.overlap_sums` gives, with nothing that depends on the values but the values.

    Nothing is checked but shapes: what a program will be given is not known when it is recorded. The one-hot reference
    and the probabilities of the volume are kept for the gradient, several times the memory of the logits.

    >>> table = plain_sums(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]]), None, sigmoid=False,
    ...                    ignore_index=None, entropy_weight=None, columns=Columns())
    >>> table.probability.tolist(), table.reference.tolist(), table.intersection.tolist()
    ([[2.0, 2.0]], [[3.0, 1.0]], [[1.5, 0.5]])
    """
    z, labels = logits.flatten(2), labels.flatten(2)
    z = z if z.dtype == torch.float64 else z.float()
    # (B, C, K, N) with sigmoid, else (B, K, N): the axis of the classes is the last but one.
    log_p = torch.stack((F.logsigmoid(-z), F.logsigmoid(z)), 2) if sigmoid else F.log_softmax(z, 1)
    w = torch.ones_like(z[:, :1]) if weight is None else weight.detach().flatten(2).to(z.dtype)
    w_entropy = w if entropy_weight is None else entropy_weight.detach().flatten(2).to(z.dtype)
    if ignore_index is not None:
        counted = (labels != ignore_index).to(z.dtype)
        labels, w, w_entropy = labels * counted.to(labels.dtype), w * counted, w_entropy * counted
    if sigmoid:
        labels, w, w_entropy = (one.unsqueeze(2) for one in (labels, w, w_entropy))
    p, classes = log_p.exp(), torch.arange(log_p.shape[-2], device=z.device)
    r = (labels == classes[:, None]).to(z.dtype)
    total = torch.float32 if z.device.type in WITHOUT_FLOAT64 else torch.float64

    def added(values: Tensor, wanted: bool = True) -> Tensor:
        found = values.sum(-1, dtype=total) if wanted else torch.zeros(log_p.shape[:-1], dtype=total, device=z.device)
        return found.squeeze(1) if sigmoid and logits.shape[1] == 1 else found

    gamma = columns.focal_gamma
    return SumTable(
        voxels=added(w.expand_as(p)),
        probability=added(w * p),
        reference=added(w * r),
        intersection=added(w * p * r),
        probability_squared=added(w * p * p, columns.squares),
        intersection_squared=added(w * p * p * r, columns.squares),
        cross_entropy=added(-w_entropy * r * log_p, columns.entropy),
        uniform_cross_entropy=added(-w * log_p, columns.uniform),
        focal=added(-w * r * (-torch.expm1(log_p)) ** (gamma or 0.0) * log_p, gamma is not None),
    )


def refuse_recording(loss: object, why: str) -> None:
    """Refuse to become a program that would be wrong on other numbers.

    Raises:
        RuntimeError: something is being recorded.
    """
    if becomes_program():
        raise RuntimeError(
            f"{type(loss).__name__} {why}, which a recorded program cannot follow; call it outside of what is traced "
            "or exported"
        )
