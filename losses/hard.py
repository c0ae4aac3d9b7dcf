"""The same table from label maps: counts of voxels instead of sums of probabilities, for hard metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.sums import SumTable


def hard_sums(
    prediction: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    ignore_index: int | None = None,
) -> SumTable:
    """Count the voxels of each class in two label maps, and those that both give to it.

    Args:
        prediction: (B, 1, *spatial) class indices 0 … num_classes − 1 of any integer or floating type.
        labels: the reference, of the same shape.
        num_classes: number of classes, background included.
        ignore_index: voxels whose reference is this label are left out.

    Returns:
        An int64 :class:`SumTable` (B, num_classes): ``voxels`` counted, ``probability`` predicted, ``reference``, and
        ``intersection`` (true positives). p² = p for hard predictions; the entropy columns are 0. Counts are exact
        and add up over cases and processes; the hard Dice is 2 · intersection / (probability + reference).

    Raises:
        ValueError: shapes that do not match, empty maps, values that are not whole numbers of the classes.

    >>> table = hard_sums(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]]), num_classes=2)
    >>> table.probability.tolist(), table.reference.tolist(), table.intersection.tolist()
    ([[2, 2]], [[1, 3]], [[1, 2]])
    """
    counts = confusion(prediction, labels, num_classes=num_classes, ignore_index=ignore_index)
    both = counts.diagonal(dim1=1, dim2=2).contiguous()
    predicted = counts.sum(1)
    nothing = torch.zeros_like(both)
    voxels = counts.sum((1, 2))[:, None].expand_as(both)
    return SumTable(voxels, predicted, counts.sum(2), both, predicted, both, nothing, nothing, nothing)


def confusion(
    prediction: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    ignore_index: int | None = None,
) -> Tensor:
    """(B, num_classes, num_classes) int64 counts: [b, i, j] voxels of reference i that are predicted as j.

    Arguments and errors as :func:`hard_sums`.

    >>> confusion(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]]), num_classes=2).tolist()
    [[[1, 0], [1, 2]]]
    """
    shape = tuple(labels.shape)
    if prediction.shape != labels.shape or labels.ndim < 3 or shape[1] != 1 or labels.numel() == 0:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and labels {shape} must both be (B, 1, *spatial) and not empty"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes} is too few; expected at least 1")
    counts = []
    for predicted, reference in zip(prediction.flatten(1), labels.flatten(1), strict=True):
        if ignore_index is not None:
            counted = reference != ignore_index
            predicted, reference = predicted[counted], reference[counted]
        predicted = _class_indices(predicted, "prediction", num_classes)
        reference = _class_indices(reference, "labels", num_classes)
        pairs = torch.bincount(reference.mul_(num_classes).add_(predicted), minlength=num_classes**2)
        counts.append(pairs.view(num_classes, num_classes))
    return torch.stack(counts)


def _class_indices(values: Tensor, name: str, num_classes: int) -> Tensor:
    """A new int64 tensor of class indices, checked."""
    whole = values.to(torch.int64, copy=True)
    if values.is_floating_point() and not torch.equal(whole.to(values.dtype), values):
        raise ValueError(f"{name} hold values that are not whole numbers; expected class indices")
    if whole.numel() > 0:
        low, high = (int(value) for value in torch.aminmax(whole))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} reach from {low} to {high}; {num_classes} classes allow 0 to {num_classes - 1} "
                "(map other values first, or name one of them as ignore_index)"
            )
    return whole
