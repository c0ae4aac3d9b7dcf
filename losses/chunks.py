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

# Two cores with 1 MiB of level-2 cache each: float32 pieces of 1 MiB were the fastest of 0.25 to 8 MiB.
CPU_CHUNK_ELEMENTS = 1 << 18
# On a GPU a piece must only be large enough to fill the device and small beside the logits.
GPU_CHUNK_ELEMENTS = 1 << 24


class Span(NamedTuple):
    """Where a piece lies: its problem, sample, first channel, and rows of the flattened volume."""

    problem: int
    sample: int
    channel: int
    first: int
    last: int


class Piece(NamedTuple):
    """One stretch of voxels of one problem: logits (K, n) in class-major order, labels (n,), weights (n,) or None."""

    problem: int
    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    entropy_weight: Tensor | None


class Volume:
    """Logits with their labels and weights, cut into pieces of neighbouring voxels.

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
        self.flat = flatten_voxels(logits)
        self.shape = tuple(self.flat.shape)
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index
        self.labels = labels.reshape(*labels.shape[:2], -1)
        self.weight = None if weight is None else weight.reshape(weight.shape[0], 1, -1)
        self.entropy_weight = None if entropy_weight is None else entropy_weight.reshape(self.labels.shape)
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.channels_a_problem = 1 if sigmoid else self.shape[1]
        self.problems = self.shape[0] * self.shape[1] // self.channels_a_problem
        self.classes = 2 if sigmoid else self.shape[1]

    def spans(self) -> Iterator[Span]:
        """Where each piece lies, in order."""
        voxels_a_row = math.prod(self.shape[3:])
        elements = GPU_CHUNK_ELEMENTS if self.flat.is_cuda else CPU_CHUNK_ELEMENTS
        rows = max(1, elements // (self.classes * voxels_a_row))
        groups = self.shape[1] // self.channels_a_problem
        for problem in range(self.problems):
            sample, group = divmod(problem, groups)
            for first in range(0, self.shape[2], rows):
                last = min(first + rows, self.shape[2])
                yield Span(problem, sample, group * self.channels_a_problem, first, last)

    def pieces(self) -> Iterator[tuple[Piece, Span]]:
        """Every piece with its span; logits and weights in the working precision."""
        for span in self.spans():
            voxels = self.voxels(span)
            z = self.at(self.flat, span).reshape(self.channels_a_problem, -1).to(self.dtype)
            if self.sigmoid:
                z = torch.cat((torch.zeros_like(z), z))
            label_channel = span.channel if self.sigmoid else 0
            labels = self.labels[span.sample, label_channel, voxels]
            weight = None if self.weight is None else self.weight[span.sample, 0, voxels].to(self.dtype)
            entropy_weight = None
            if self.entropy_weight is not None:
                entropy_weight = self.entropy_weight[span.sample, label_channel, voxels].to(self.dtype)
            if self.ignore_index is not None:
                ignored = labels == self.ignore_index
                labels = labels.masked_fill(ignored, 0)
                counted = (~ignored).to(self.dtype)
                weight = counted if weight is None else weight * counted
                entropy_weight = None if entropy_weight is None else entropy_weight * counted
            yield Piece(span.problem, z, labels, weight, entropy_weight), span

    def reference(self, labels: Tensor) -> Tensor:
        """The one-hot reference (K, n) of one piece's labels (n,); no column is set for a label outside the classes."""
        if labels.dtype != torch.uint8 or self.classes > 256:
            labels = labels.to(torch.int32)
        classes = torch.arange(self.classes, dtype=labels.dtype, device=labels.device)[:, None]
        reference = torch.empty(self.classes, labels.shape[0], dtype=self.dtype, device=labels.device)
        return torch.eq(labels, classes, out=reference)

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
    except RuntimeError:
        return values


class SoftmaxPiece(NamedTuple):
    """The softmax of one piece (K, n) and the log of its denominator (n,)."""

    probability: Tensor
    log_total: Tensor

    def surprise(self, logits: Tensor) -> Tensor:
        """−log p of every class, (K, n), exact where p itself would vanish."""
        return self.log_total - logits


def softmax_piece(logits: Tensor, place: Tensor | None = None) -> SoftmaxPiece:
    """Softmax over axis 0 of (K, n), written into ``place`` (K, n or K, *rows) where one is given.

    On a CPU the exponentials are taken unshifted and their sums looked at: between 1e-30 and 1e37 they are exact, as
    logits of a network are. Otherwise (logits near ±80) the largest is subtracted first, at two passes more.

    >>> softmax_piece(torch.tensor([[0.0], [0.0]])).probability.tolist()
    [[0.5], [0.5]]
    """
    shift: Tensor | None = None
    exponential = torch.exp(logits)
    total = exponential.sum(0)
    if logits.is_cuda or not within(total, 1e-30, 1e37):  # on a GPU, looking would wait for the device
        shift = logits.amax(0)
        exponential = torch.sub(logits, shift).exp_()
        total = exponential.sum(0)
    log_total = total.log() if shift is None else total.log().add_(shift)
    scale = total.reciprocal_()
    if place is not None and place.shape == exponential.shape:
        return SoftmaxPiece(torch.mul(exponential, scale, out=place), log_total)
    probability = exponential.mul_(scale)
    if place is not None:
        place.copy_(probability.view(place.shape))
    return SoftmaxPiece(probability, log_total)


def within(values: Tensor, low: float, high: float) -> bool:
    """Whether every value lies strictly between ``low`` and ``high``; False for NaN."""
    least, most = torch.aminmax(values)
    return bool(least > low) and bool(most < high)
