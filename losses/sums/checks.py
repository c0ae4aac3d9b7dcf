"""What a loss refuses, in words: shapes that do not match, labels outside the classes, logits that are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


class NonFiniteLogitsError(ValueError):
    """The logits hold NaN or an infinity, so the loss has no value.

    Its own type, because training may skip such a step and count it, while every other ``ValueError`` of a loss is a
    mistake in the call.
    """


def check_shapes(logits: Tensor, labels: Tensor, weight: Tensor | None, *, sigmoid: bool) -> None:
    """Refuse logits, labels and weight that do not describe the same voxels.

    Args:
        logits: (B, C, *spatial), floating point.
        labels: (B, 1, *spatial), or (B, C, *spatial) for multi-label logits (``sigmoid`` and C > 1).
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
    if tuple(labels.shape) != expected:
        raise ValueError(f"labels have shape {tuple(labels.shape)}; logits of shape {shape} need labels of {expected}")
    expected = (shape[0], 1, *shape[2:])
    if weight is not None and tuple(weight.shape) != expected:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; logits of shape {shape} need a weight of {expected}")


def check_values(extremes: Sequence[float], num_classes: int) -> None:
    """Refuse values seen while the sums were made.

    Args:
        extremes: the sum of all logits (NaN or infinite when one of them is), the smallest and the largest label,
            the largest distance of a label from a whole number, the smallest voxel weight, the sum of the weights.
        num_classes: how many classes the labels may name, from 0.

    Raises:
        NonFiniteLogitsError: a logit is not finite.
        ValueError: labels outside the classes or not integers; weights that are negative or not finite.
    """
    logit_sum, label_min, label_max, fraction, weight_min, weight_sum = extremes
    if not math.isfinite(logit_sum):
        raise NonFiniteLogitsError(
            f"the logits hold NaN or an infinity (their sum is {logit_sum:g}); skip this step, or lower the learning "
            "rate, clip the gradients, or use bfloat16 in place of float16"
        )
    if fraction != 0:
        raise ValueError("labels hold values that are not whole numbers; expected class indices, not probabilities")
    if label_min < 0 or label_max >= num_classes:
        raise ValueError(
            f"labels reach from {label_min:g} to {label_max:g}; {num_classes} classes allow 0 to {num_classes - 1} "
            "(map other values first, or name one of them as ignore_index)"
        )
    if not (weight_min >= 0 and math.isfinite(weight_sum)):
        raise ValueError(
            f"the voxel weight reaches down to {weight_min:g} and sums to {weight_sum:g}; expected finite values >= 0"
        )


def check_fraction(name: str, value: float, low: float = 0.0, high: float = 1.0) -> float:
    """``value`` as a float if it lies in [low, high].

    >>> check_fraction("alpha", 1)
    1.0

    Raises:
        ValueError: it lies outside; the message names the option.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}={value!r} is out of range; expected a number from {low:g} to {high:g}")
    return float(value)
