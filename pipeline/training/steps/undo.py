"""Taking back what a step did: at once, or as a number on the device says, for which the host does not wait."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


class Undo:
    """Copies of tensors as they were, to set them back.

    The copies lie in one piece for each type of number, so that it takes three launches and not one for each tensor;
    they are made anew when other tensors are kept.

    >>> undo, weight = Undo(), torch.tensor([1.0, 2.0])
    >>> undo.keep([weight])
    >>> _ = weight.mul_(float("nan"))
    >>> undo.restore_unless(torch.tensor(False))
    >>> weight
    tensor([1., 2.])
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._parts: list[_Part] = []

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Remember tensors as they are now."""
        if list(map(id, tensors)) != list(map(id, self._tensors)):
            self._tensors = list(tensors)
            alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
            for tensor in tensors:
                alike[(tensor.dtype, tensor.device)].append(tensor)
            self._parts = [_Part(some) for some in alike.values()]
        for part in self._parts:
            part.keep()

    def copies(self) -> dict[int, Tensor]:
        """The tensors as they were, by the ``id`` of each."""
        return {id(one): copy for part in self._parts for one, copy in zip(part.tensors, part.copies, strict=True)}

    def restore(self) -> None:
        """Set all tensors back."""
        for part in self._parts:
            part.restore()

    def restore_unless(self, well: Tensor) -> None:
        """Set all tensors back where ``well``, a truth value on their device, is false; else leave them."""
        for part in self._parts:
            part.restore_unless(well)


class _Part:
    """Tensors of one type on one device."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        size = sum(tensor.numel() for tensor in tensors)
        self.kept = torch.empty(size, dtype=tensors[0].dtype, device=tensors[0].device)
        self.copies = _views(self.kept, tensors)
        self._now: tuple[Tensor, list[Tensor]] | None = None

    @torch.no_grad()
    def keep(self) -> None:
        torch._foreach_copy_(self.copies, self.tensors)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self.tensors, self.copies)

    @torch.no_grad()
    def restore_unless(self, well: Tensor) -> None:
        if self._now is None:
            now = torch.empty_like(self.kept)
            self._now = now, _views(now, self.tensors)
        now, views = self._now
        torch._foreach_copy_(views, self.tensors)
        # A choice, and no sum weighted with 0 and 1: what is not finite would stay.
        torch.where(well, now, self.kept, out=now)
        torch._foreach_copy_(self.tensors, views)


def _views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a row that look like the tensors, in their layouts too, as operations on lists of tensors want it."""
    views, begin = [], 0
    for tensor in tensors:
        strides = torch.empty_like(tensor, device="meta").stride()  # dense, where the tensor has gaps
        views.append(flat.as_strided(tensor.shape, strides, begin))
        begin += tensor.numel()
    return views
