"""A loss and its gradient as one CUDA graph: a hundred and thirty small operations on a table of a few numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rarevox.losses import Loss
from rarevox.losses.sums.checks import check_values, checked_later
from rarevox.pipeline.console import console
from rarevox.pipeline.training.steps.recording import (
    Held,
    graphable,
    kind_of,
    recorded,
    rejoin,
    side_stream,
    waits_refused,
)

OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class GraphedLoss:
    """Calls of a loss, by a graph once it came twice in a row with logits in one place.

    The logits of a pass by graphs lie in one place (:class:`rarevox.pipeline.training.steps.graphed.GraphedPasses`), so
    that they are read where they are. A loss whose options change, as the share of one that follows a schedule does,
    goes as it would without; so do losses of other people's, which may depend on more than can be seen, and those that
    wait for the device. The values are those without, to the bit.

    Attributes:
        held: its graph (:class:`rarevox.pipeline.training.steps.recording.Held`).
    """

    def __init__(self) -> None:
        self.held: Held[_CapturedLoss] = Held(lambda why: console.say("the loss goes without a CUDA graph: {}", why))

    def __call__(self, loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            loss: of any kind.
            logits: (B, C, *spatial), as the loss takes them.
            labels: as the loss takes them.

        Raises:
            ValueError: what the loss refuses; of a graph's later (`rarevox.losses.sums.checks.checked_later`).
        """
        captured = None
        if logits.requires_grad and graphable(logits) and is_known(loss):
            kind = (options_of(loss), logits.data_ptr(), kind_of(logits), kind_of(labels))
            captured = self.held.of(kind, lambda: _CapturedLoss(loss, logits, labels), logits.device)
        if captured is None:
            return loss(logits, labels)  # type: ignore[no-any-return]
        value: Tensor = _Value.apply(logits, labels, captured)
        return value


def is_known(loss: nn.Module) -> bool:
    """Whether all that a loss depends on is seen by :func:`options_of`: one of ours, that needs no regions.

    >>> from rarevox.losses import GeneralizedDiceCELoss, ComponentDiceCELoss
    >>> is_known(GeneralizedDiceCELoss()), is_known(ComponentDiceCELoss()), is_known(nn.CrossEntropyLoss())
    (True, False, False)
    """
    return (
        isinstance(loss, Loss)
        and not loss.needs_regions
        and all(type(one).__module__.startswith("rarevox.losses.") for one in loss.modules())
    )


def options_of(loss: nn.Module) -> list[Any]:
    """What a loss depends on beside its tensors, and where these lie.

    >>> from rarevox.losses import DiceCELoss
    >>> loss = DiceCELoss(); before = options_of(loss); loss.alpha = 0.25
    >>> options_of(loss) == before
    False
    """
    found: list[Any] = [loss]  # itself, and not its id, which another may have later
    for module in loss.modules():
        own = {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}
        for name, value in {**own, **module._buffers}.items():
            found.append((name, value.data_ptr() if isinstance(value, Tensor) else value))
    return found


class _CapturedLoss:
    """The graph for logits in one place, and the memory that it writes."""

    def __init__(self, loss: nn.Module, logits: Tensor, labels: Tensor) -> None:
        leaf = logits.detach().requires_grad_()  # the same memory
        self.labels = labels.detach().clone()
        self.number = 0

        def run() -> list[Tensor]:
            with torch.enable_grad(), checked_later() as waiting:
                value = loss(leaf, self.labels)
                (gradient,) = torch.autograd.grad(value, leaf)
            self.classes = [one.num_classes for one in waiting]
            return [value.detach(), gradient, *(one.seen for one in waiting)]

        stream = side_stream(logits)
        try:
            with torch.cuda.stream(stream), waits_refused(logits):
                run()
            self._replay, ((self.value, self.gradient, *self.seen), _) = recorded(run, None, stream)
        finally:
            rejoin(logits, stream)

    def __call__(self, labels: Tensor) -> Tensor:
        self.number += 1
        self.labels.copy_(labels)
        self._replay()
        for seen, classes in zip(self.seen, self.classes, strict=True):
            check_values(seen.clone(), classes)
        return self.value.clone()


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, captured: _CapturedLoss) -> Tensor:
        value = captured(labels)
        ctx.captured, ctx.number = captured, captured.number
        return value

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.number != ctx.captured.number:
            raise RuntimeError("the graph holds a later loss: take the gradient of one before the next is called for")
        return ctx.captured.gradient * gradient, None, None
