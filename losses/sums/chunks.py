"""The volume in pieces that fit the processor's cache: how logits, labels and weights are cut along their voxels.

A loss that works through the volume a piece at a time needs no full-size temporary, and each of its several passes
over a piece finds it in the cache. Everything here is a view or a copy of one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rarevox.losses.sums.checks import Extremes
from rarevox.losses.sums.workers import scratch

# Of float32 pieces of 0.5, 1 and 2 MiB the last were the fastest on two cores (49, 36, 33 ms a step of GDL on
# 2×5×96³): smaller ones wait for the interpreter, larger ones would take scratch memory that shows beside the logits.
CPU_PIECE_ELEMENTS = 1 << 19
# On a GPU a piece must only be large enough to fill the device and small beside the logits.
GPU_PIECE_ELEMENTS = 1 << 24


# Devices on which a float64 tensor cannot be made.
WITHOUT_FLOAT64 = frozenset({"mps"})


class Span(NamedTuple):
    """Where a piece lies: its problem, sample, first channel, and rows of the flattened volume."""

    problem: int
    sample: int
    channel: int
    first: int
    last: int


class Piece(NamedTuple):
    """One stretch of voxels of one problem: logits (K, n) in class-major order, labels (n,), weights (n,) or None."""

    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    entropy_weight: Tensor | None


class Volume:
    """Logits with their labels and weights, cut into pieces of neighbouring voxels; shape letters as in `table.py`.

    A softmax over C classes is one problem a sample, with C rows of logits. With ``sigmoid`` each (sample, channel)
    is a problem of its own with the rows [0, z]: softmax([0, z]) = [1 − sigmoid(z), sigmoid(z)].

    Args:
        logits: (B, C, *spatial), contiguous, channels-last or any strided view (a crop, say); never copied whole.
        labels: (B, 1, *spatial), or (B, C, *spatial) with ``sigmoid``.
        weight: (B, 1, *spatial) or None.
        entropy_weight: shaped as the labels, or None: a second weight, for the cross-entropy columns alone.
        sigmoid: see above.
        ignore_index: voxels with this label are given label 0 and weight 0.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        entropy_weight: Tensor | None = None,
        *,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        self.logits = logits
        self.flat = flatten_voxels(logits)
        self.shape = tuple(self.flat.shape)
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index
        self.labels = labels.reshape(*labels.shape[:2], -1)
        self.weight = None if weight is None else weight.reshape(weight.shape[0], 1, -1)
        self.entropy_weight = None if entropy_weight is None else entropy_weight.reshape(self.labels.shape)
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        # Sums over many pieces are kept in float64 where the device has it.
        self.accumulator = torch.float32 if logits.device.type in WITHOUT_FLOAT64 else torch.float64
        self.channels_a_problem = 1 if sigmoid else self.shape[1]
        self.problems = self.shape[0] * self.shape[1] // self.channels_a_problem
        self.classes = 2 if sigmoid else self.shape[1]
        # The one-hot reference is a comparison of the labels with these; of all integers uint8 takes the least memory
        # traffic. A label that does not fit wraps around; piece_extremes sees it as it was, and the loss is refused.
        self._small = torch.uint8 if self.classes <= 256 else torch.int32
        self._classes = torch.arange(self.classes, dtype=self._small, device=logits.device)[:, None]

    def spans(self) -> Iterator[Span]:
        """Where each piece lies, in order."""
        # The volume is cut along axis 2 alone: all voxels where it could be flattened, else the first spatial axis.
        voxels_a_row = math.prod(self.shape[3:])
        elements = GPU_PIECE_ELEMENTS if self.flat.is_cuda else CPU_PIECE_ELEMENTS
        rows = max(1, elements // (self.classes * voxels_a_row))
        groups = self.shape[1] // self.channels_a_problem
        for problem in range(self.problems):
            sample, group = divmod(problem, groups)
            for first in range(0, self.shape[2], rows):
                last = min(first + rows, self.shape[2])
                yield Span(problem, sample, group * self.channels_a_problem, first, last)

    @property
    def threads(self) -> int:
        """How many threads work on the pieces: PyTorch's number on a CPU, else one, as the device does the work."""
        return torch.get_num_threads() if self.flat.device.type == "cpu" else 1

    def piece(self, span: Span) -> Piece:
        """The piece at a span; logits and weights in the working precision."""
        voxels = self.voxels(span)
        z = self.at(self.flat, span).reshape(self.channels_a_problem, -1).to(self.dtype)
        if self.sigmoid:  # softmax([0, z]) = [1 − sigmoid(z), sigmoid(z)], so that one arithmetic serves both
            z = torch.cat((torch.zeros_like(z), z))
        label_channel = span.channel if self.sigmoid else 0
        labels = self.labels[span.sample, label_channel, voxels]
        weight = None if self.weight is None else self.weight[span.sample, 0, voxels].to(self.dtype)
        entropy_weight = None
        if self.entropy_weight is not None:
            entropy_weight = self.entropy_weight[span.sample, label_channel, voxels].to(self.dtype)
        if self.ignore_index is not None:  # the label may lie outside the classes, where it has no row in the one-hot
            ignored = labels == self.ignore_index
            labels = labels.masked_fill(ignored, 0)
            counted = (~ignored).to(self.dtype)
            weight = counted if weight is None else weight * counted
            entropy_weight = None if entropy_weight is None else entropy_weight * counted
        return Piece(z, labels, weight, entropy_weight)

    def reference(self, labels: Tensor) -> Tensor:
        """The one-hot reference (K, n) of one piece's labels (n,), in scratch memory."""
        out = scratch("reference", (self.classes, labels.shape[0]), self.dtype, labels.device)
        return torch.eq(labels.to(self._small), self._classes, out=out)

    def voxels(self, span: Span) -> slice:
        """The voxels of a span along a flattened (voxels,) axis."""
        voxels_a_row = math.prod(self.shape[3:])
        return slice(span.first * voxels_a_row, span.last * voxels_a_row)

    def at(self, flat: Tensor, span: Span) -> Tensor:
        """The part of ``flat`` (shaped as the flattened logits) that ``span`` names, as a view."""
        channels = slice(span.channel, span.channel + self.channels_a_problem)
        return flat[span.sample, channels, span.first : span.last]


def flatten_voxels(values: Tensor) -> Tensor:
    """(B, C, *spatial) as (B, C, voxels) without a copy, or unchanged where the strides do not allow it.

    >>> flatten_voxels(torch.zeros(2, 3, 4, 5, 6)).shape
    torch.Size([2, 3, 120])
    >>> flatten_voxels(torch.zeros(2, 3, 4, 5, 6)[..., 1:-1]).shape  # a crop: its rows stay apart
    torch.Size([2, 3, 4, 5, 4])
    """
    try:
        return values.view(values.shape[0], values.shape[1], -1)
    except RuntimeError:  # the only way to ask PyTorch whether a view is possible
        return values


class SoftmaxPiece(NamedTuple):
    """The softmax of one piece (K, n), its denominator Σ exp(z − shift) (n,), the shift (n,) or None for 0, and a
    buffer (K, n) that is free for use."""

    probability: Tensor
    total: Tensor
    shift: Tensor | None
    spare: Tensor

    def surprisal(self, logits: Tensor) -> Tensor:
        """−log p of every class, (K, n), exact where p itself would vanish; written into ``spare``."""
        log_total = self.total.log() if self.shift is None else self.total.log().add_(self.shift)
        return torch.sub(log_total, logits, out=self.spare)


def softmax_piece(logits: Tensor, place: Tensor | None = None, buffer: Tensor | None = None) -> SoftmaxPiece:
    """Softmax over axis 0 of (K, n), written into ``place`` (K, n or K, *rows) where one is given.

    ``buffer`` (K, n) takes the exponentials; it then is the softmax itself or, with a ``place``, spare.

    On a CPU the exponentials are taken unshifted and their sums looked at: between 1e-30 and 1e37 they are exact, as
    logits of a network are. Otherwise (logits near ±80) the largest is subtracted first, at two passes more.

    >>> softmax_piece(torch.tensor([[0.0], [0.0]])).probability.tolist()
    [[0.5], [0.5]]
    """
    shift: Tensor | None = None
    exponential = torch.exp(logits, out=buffer)
    total = exponential.sum(0)
    if logits.is_cuda or not within(total, 1e-30, 1e37):  # on a GPU, looking would wait for the device
        shift = logits.amax(0)
        exponential = torch.sub(logits, shift, out=buffer).exp_()
        total = exponential.sum(0)
    scale = total.reciprocal()  # one division a voxel, then K products
    if place is not None and place.shape == exponential.shape:
        return SoftmaxPiece(torch.mul(exponential, scale, out=place), total, shift, exponential)
    probability = exponential.mul_(scale)
    if place is not None:
        place.copy_(probability.view(place.shape))
    return SoftmaxPiece(probability, total, shift, torch.empty_like(probability))


def within(values: Tensor, low: float, high: float) -> bool:
    """Whether every value lies strictly between ``low`` and ``high``; False for NaN."""
    least, most = torch.aminmax(values)
    return low < least.item() and most.item() < high


class PieceExtremes(NamedTuple):
    """The extremes of one piece, as `checks.Extremes` names them, in tensors of one element; None stands for 0."""

    logit_sum: Tensor
    label_low: Tensor
    label_high: Tensor
    label_fraction: Tensor | None
    weight_low: Tensor | None
    weight_sum: Tensor | None


def piece_extremes(piece: Piece) -> PieceExtremes:
    """The extremes of one piece, without waiting for the device."""
    labels, weight = piece.labels, piece.weight
    fraction = (labels - labels.round()).abs().amax() if labels.is_floating_point() else None
    low, high = torch.aminmax(labels)
    if weight is None:
        return PieceExtremes(piece.logits.sum(), low, high, fraction, None, None)
    return PieceExtremes(piece.logits.sum(), low, high, fraction, weight.amin(), weight.sum())


def merge_extremes(extremes: list[PieceExtremes]) -> Extremes | Tensor:
    """The extremes of all pieces together; on a GPU a tensor (6,), for which nobody has waited yet."""
    device = extremes[0].logit_sum.device
    merged = []
    for name, values in zip(PieceExtremes._fields, zip(*extremes, strict=True), strict=True):
        if values[0] is None:
            merged.append(torch.zeros((), dtype=torch.float32, device=device))
            continue
        seen = torch.stack(values).to(torch.float32)
        merged.append(seen.sum() if name.endswith("sum") else seen.amin() if name.endswith("low") else seen.amax())
    # One transfer for all six: each would wait for everything that the device has still to do.
    together = torch.stack(merged)
    return together if together.is_cuda else Extremes(*together.tolist())
