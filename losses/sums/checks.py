"""What a loss refuses, in words: shapes that do not match, labels outside the classes, logits that are not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class NonFiniteLogitsError(ValueError):
    """The logits hold NaN or an infinity, so the loss has no value.

    Its own type, because training may skip such a step and count it, while every other ``ValueError`` of a loss is a
    mistake in the call.
    """


class Extremes(NamedTuple):
    """What a pass over the volume sees beside the sums.

    Attributes:
        logit_sum: the sum of all logits; NaN or infinite when one of them is.
        label_low: the smallest label.
        label_high: the largest label.
        label_fraction: the largest distance of a label from a whole number.
        weight_low: the smallest voxel weight; 0 where there are no weights.
        weight_sum: the sum of the weights; 0 where there are none.
    """

    logit_sum: float
    label_low: float
    label_high: float
    label_fraction: float
    weight_low: float
    weight_sum: float


# The places of the extremes where they are kept in one array.
LOGIT_SUM, LABEL_LOW, LABEL_HIGH, LABEL_FRACTION, WEIGHT_LOW, WEIGHT_SUM = range(len(Extremes._fields))


def check_shapes(logits: Tensor, labels: Tensor, weight: Tensor | None, *, sigmoid: bool) -> None:
    """Refuse logits, labels and weight that do not describe the same voxels.

    Args:
        logits: (B, C, *spatial), floating point.
        labels: (B, 1, *spatial), or for multi-label logits (``sigmoid`` and C > 1) (B, C, *spatial), or (B, 1,
            *spatial) depths in nested regions.
        weight: (B, 1, *spatial) or None.
        sigmoid: one two-class problem for each logit, rather than one softmax over the classes.

    Raises:
        ValueError: a shape that does not match, one class under softmax, an empty tensor.
        TypeError: logits that are not floating point.
    """
    if not logits.is_floating_point():
        raise TypeError(f"logits are {logits.dtype}; expected float32, float64, bfloat16 or float16 network outputs")
    shape = tuple(logits.shape)
    if len(shape) < 3:
        raise ValueError(f"logits have shape {shape}; expected (batch, classes, *spatial) with one to three axes")
    if logits.numel() == 0:
        raise ValueError(f"logits of shape {shape} are empty; every axis must hold at least one element")
    if shape[1] == 1 and not sigmoid:
        raise ValueError(
            f"logits of shape {shape} hold a single class, whose softmax is 1 everywhere; "
            "give one channel for each class, background included, or set sigmoid=True for one binary logit"
        )
    channels = shape[1] if sigmoid else 1
    expected = (shape[0], channels, *shape[2:])
    if tuple(labels.shape) not in (expected, (shape[0], 1, *shape[2:])):
        raise ValueError(f"labels have shape {tuple(labels.shape)}; logits of shape {shape} need labels of {expected}")
    expected = (shape[0], 1, *shape[2:])
    if weight is not None and tuple(weight.shape) != expected:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; logits of shape {shape} need a weight of {expected}")


class Unchecked(NamedTuple):
    """What was seen of a volume and still lies on the device, (6,) in the order of `Extremes`, and its classes."""

    seen: Tensor
    num_classes: int


_LATER: ContextVar[list[Unchecked] | None] = ContextVar("later", default=None)


@contextlib.contextmanager
def checked_later() -> Iterator[list[Unchecked]]:
    """Losses in this context do not wait for a GPU; what they saw is in the list, and whoever reads it checks it.

    To read it with other numbers in one transfer: each wait lets the device run dry. On the CPU losses check at once.
    """
    waiting: list[Unchecked] = []
    token = _LATER.set(waiting)
    try:
        yield waiting
    finally:
        _LATER.reset(token)


def check_values(extremes: Extremes | Tensor, num_classes: int) -> None:
    """Refuse values seen while the sums were made; within `checked_later`, those on a device later.

    Args:
        extremes: of the whole volume; as a tensor (6,) where they lie on a device.
        num_classes: how many classes the labels may name, from 0.

    Raises:
        NonFiniteLogitsError: a logit is not finite.
        ValueError: labels outside the classes or not integers; weights that are negative or not finite.
    """
    if isinstance(extremes, Tensor):
        waiting = _LATER.get()
        if waiting is not None:
            waiting.append(Unchecked(extremes, num_classes))
            return
        extremes = Extremes(*extremes.tolist())
    if not math.isfinite(extremes.logit_sum):
        raise NonFiniteLogitsError(
            f"the logits hold NaN or an infinity (their sum is {extremes.logit_sum:g}); skip this step, or lower the "
            "learning rate, clip the gradients, or use bfloat16 in place of float16"
        )
    if extremes.label_fraction != 0:
        raise ValueError("labels hold values that are not whole numbers; expected class indices, not probabilities")
    if extremes.label_low < 0 or extremes.label_high >= num_classes:
        raise ValueError(
            f"labels reach from {extremes.label_low:g} to {extremes.label_high:g}; {num_classes} classes allow 0 to "
            f"{num_classes - 1} (map other values first, or name one of them as ignore_index)"
        )
    if not (extremes.weight_low >= 0 and math.isfinite(extremes.weight_sum)):
        raise ValueError(
            f"the voxel weight reaches down to {extremes.weight_low:g} and sums to {extremes.weight_sum:g}; expected "
            "finite values >= 0"
        )
