"""Numbers of a step on a GPU, read a step late: the next one is queued by then, and the device never runs dry.

Whether a step is to be taken is decided on the device (:func:`is_well`); the host learns it afterwards, to count what
was skipped and to say what was wrong.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rarevox.losses.sums.checks import Extremes, NonFiniteLogitsError, Unchecked, check_values


def numbers_of(loss: Tensor, norm: Tensor, unchecked: Sequence[Unchecked]) -> Tensor:
    """Loss, gradient norm and what losses saw of their volumes, in one row: one transfer for all."""
    return torch.cat([loss.detach().double().view(1), norm.double().view(1), *(one.seen.double() for one in unchecked)])


def judged(numbers: Sequence[float], unchecked: Sequence[Unchecked]) -> tuple[float, bool]:
    """The loss, NaN where the logits were not finite, and whether the step is to be taken.

    Args:
        numbers: as :func:`numbers_of` lays them out.
        unchecked: as given there.

    Raises:
        ValueError: labels or weights that the loss refuses.
    """
    value, length, *seen = numbers
    try:
        check_all(seen, unchecked)
    except NonFiniteLogitsError:
        value = math.nan
    return value, math.isfinite(value) and math.isfinite(length)


def check_all(seen: Sequence[float], unchecked: Sequence[Unchecked]) -> None:
    """Hold what losses saw, one volume after the other, against what they allow.

    Raises:
        ValueError: labels or weights that a loss refuses.
        NonFiniteLogitsError: none of these, and logits that are not finite.
    """
    bad: NonFiniteLogitsError | None = None
    for number, one in enumerate(unchecked):
        first = number * len(Extremes._fields)
        try:
            check_values(Extremes(*seen[first : first + len(Extremes._fields)]), one.num_classes)
        except NonFiniteLogitsError as error:
            bad = error
    if bad is not None:
        raise bad


def is_well(numbers: Tensor, unchecked: Sequence[Unchecked]) -> Tensor:
    """Whether a step is to be taken, as :func:`judged` says (False where it raises), without leaving the device.

    >>> seen = torch.tensor([0.5, 0.0, 2.0, 0.0, 0.0, 0.0])
    >>> row = numbers_of(torch.tensor(0.3), torch.tensor(1.0), [Unchecked(seen, 3)])
    >>> is_well(row, [Unchecked(seen, 3)]), is_well(row, [Unchecked(seen, 2)])  # label 2 of two classes
    (tensor(True), tensor(False))
    """
    low, high = _limits(tuple(one.num_classes for one in unchecked), numbers.device)
    return ((numbers >= low) & (numbers <= high)).all()  # no comparison holds for NaN


@functools.lru_cache(maxsize=16)
def _limits(classes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The least and the largest that each number may be."""
    most, infinite = torch.finfo(torch.float64).max, math.inf
    low, high = [-most, -most], [most, most]
    for count in classes:
        low += Extremes(
            logit_sum=-most, label_low=0.0, label_high=-infinite, label_fraction=0.0, weight_low=0.0, weight_sum=-most
        )
        high += Extremes(
            logit_sum=most,
            label_low=infinite,
            label_high=count - 1.0,
            label_fraction=0.0,
            weight_low=infinite,
            weight_sum=most,
        )
    both = torch.tensor([low, high], dtype=torch.float64)
    if device.type == "cuda":
        both = both.pin_memory().to(device, non_blocking=True)
    return both[0], both[1]


class LateLoss:
    """The loss of a step whose numbers are on their way from the device; ``float()`` of it waits for them.

    Args:
        numbers: on the device.
        settle: makes of the numbers the loss to be logged, once; it may raise.

    Attributes:
        known: whether they have been read.

    >>> loss = LateLoss(torch.tensor([0.25, 1.0]), lambda numbers: numbers[0])
    >>> loss.known, float(loss), loss.known
    (False, 0.25, True)
    """

    def __init__(self, numbers: Tensor, settle: Callable[[Sequence[float]], float]) -> None:
        self._host, self._event = numbers, None
        self._settle: Callable[[Sequence[float]], float] | None = settle
        self._value = math.nan
        if numbers.is_cuda:
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype).pin_memory()
            self._host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(numbers.device))

    @property
    def known(self) -> bool:
        """Whether the numbers have been read."""
        return self._settle is None

    def settle(self) -> float:
        """The loss, NaN for a skipped step.

        Raises:
            Exception: what ``settle`` raises, once.
        """
        settle, self._settle = self._settle, None
        if settle is not None:
            if self._event is not None:
                self._event.synchronize()
            self._value = settle(self._host.tolist())
        return self._value

    __float__ = settle

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)


def is_known(loss: float | LateLoss) -> bool:
    """Whether nobody has to wait for the number.

    >>> is_known(0.5)
    True
    """
    return not isinstance(loss, LateLoss) or loss.known


def undoable(optimizer: torch.optim.Optimizer) -> list[Tensor] | None:
    """All that an optimiser's step changes, where that lies on the device of its parameters; else None.

    None too before an optimiser has made its state, and where it counts its steps on the host: a step that the device
    did not take would be counted.
    """
    found: dict[int, Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimizer.state.get(parameter)
            if not state:
                return None
            for value in state.values():
                if not isinstance(value, Tensor) or value.device != parameter.device:
                    return None
                found[id(value)] = value
            found[id(parameter)] = parameter
    return list(found.values())
