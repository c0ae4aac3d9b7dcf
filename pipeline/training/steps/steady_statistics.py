"""Running statistics of batch norm that span enough patches, however few there are in a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.pipeline.training.steps.undo import Undo


class SteadyStatistics:
    """Running statistics of batch norm that span enough patches, however few there are in a step.

    With a momentum of 0.1 they are those of the last ten steps or so, and with one patch a step evaluation depends on
    which patches these happened to be: 12 minutes of hippocampus at batch 1, augmented, ended at a Dice of 0.871, and
    at 0.890 with statistics over 100 patches. Step t of a training has the momentum

        max(1 / t, min(m, max(10 / t, n / ``patches``)))

    for n patches a step and the norm's own momentum m: a plain mean at first, in which the values before the first step
    leave no trace; then the last tenth of the steps, until that is ``patches`` patches; never more than the norm's own.
    A norm whose momentum is None keeps the plain mean.

    Args:
        network: its batch norms, of any kind.
        patches: that the statistics should span.

    >>> norm = nn.BatchNorm3d(4)
    >>> steady = SteadyStatistics(nn.Sequential(norm), patches=50)
    >>> steady(step=1, batch=1); norm.momentum
    1.0
    >>> steady(step=200, batch=1); norm.momentum
    0.05
    >>> steady(step=500, batch=1); norm.momentum
    0.02
    >>> steady(step=500, batch=8); norm.momentum
    0.1
    """

    def __init__(self, network: nn.Module, patches: int = 50) -> None:
        self._all = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self.norms = [(norm, norm.momentum) for norm in self._all if norm.momentum is not None]
        self.patches = patches
        self._undo = Undo()

    def __call__(self, *, step: int, batch: int) -> None:
        """Set the momentum for a step, counted from 1, of a number of patches."""
        for norm, momentum in self.norms:
            now = max(1 / step, min(momentum, max(10 / step, batch / self.patches)))
            if now != norm.momentum:  # a module takes long to be told
                norm.momentum = now

    def keep(self) -> None:
        """Remember the statistics as they are before the forward pass of a step, which moves them."""
        self._undo.keep([one for norm in self._all for one in norm._buffers.values() if one is not None])

    @contextmanager
    def of_the_batch_alone(self) -> Iterator[None]:
        """Let a pass leave the batch's own statistics in place of the running ones: a momentum of 1.

        Raises:
            ValueError: a norm has no momentum; its share of a batch depends on a count that only the device knows.
        """
        if len(self.norms) < len(self._all):
            raise ValueError("a batch norm without momentum takes the mean of all batches")
        before = [norm.momentum for norm in self._all]
        try:
            for norm in self._all:
                norm.momentum = 1.0
            yield
        finally:
            for norm, momentum in zip(self._all, before, strict=True):
                norm.momentum = momentum

    @torch.no_grad()
    def blend(self) -> None:
        """After a pass within :meth:`of_the_batch_alone`: running = (1 − m) · what was kept + m · the batch's."""
        kept = self._undo.copies()
        alike: dict[float, list[torch.Tensor]] = defaultdict(list)
        for norm, _ in self.norms:
            assert norm.momentum is not None
            for buffer in (norm.running_mean, norm.running_var):
                if buffer is not None:
                    alike[norm.momentum].append(buffer)
        for momentum, now in alike.items():
            torch._foreach_lerp_(now, [kept[id(one)] for one in now], 1 - momentum)

    def restore(self) -> None:
        """Take back what a step did to the statistics: one that is skipped, whose logits may be no numbers.

        A single infinity would stay in a running mean for ever.
        """
        self._undo.restore()

    def restore_unless(self, well: torch.Tensor) -> None:
        """:meth:`restore` where ``well``, on the network's device, is false."""
        self._undo.restore_unless(well)
