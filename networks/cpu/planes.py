"""A chain of valid 3³ layers that a volume goes through a few planes at a time, in evaluation.

Each layer keeps the last two planes that it was given, so nothing is computed twice along the first axis and no tensor
of the volume's size is held, but for the input and what is made of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import torch

from rarevox.networks.cpu.joint import JointLayers
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.spare import Spare
from rarevox.networks.cpu.volumes import in_eights
from rarevox.networks.protocols import Reduction, ValidLayer

KEPT = 2
# Voxels of the planes that are pushed at once: with 50 channels 140 MB, and work enough for the convolutions; four
# planes at least, which is a tile of `rarevox.networks.cpu.winograd.convolution`.
VOXELS, LEAST_PLANES = 720_000, 4
# Voxels of the output that go through the joint layers together where planes do not come a few at a time.
PIECE_VOXELS = 1 << 16
# On a GPU each piece costs tens of launches: 400 features of 2 million voxels are 1.7 GB in half precision.
GPU_PIECE_VOXELS = 1 << 21


def can_stream(x: torch.Tensor) -> bool:
    """Whether planes of tensors like ``x`` can go through a few at a time, whatever the number format."""
    return x.ndim == 5 and x.device.type == "cpu" and pointwise.kernels() is not None


def streams(x: torch.Tensor) -> bool:
    """Whether the planes of ``x`` go through a few at a time: one sample, in float32, without gradients."""
    return x.shape[0] == 1 and pointwise.applies(x)


def in_planes(
    x: torch.Tensor,
    path: Callable[[torch.Tensor], torch.Tensor],
    layers: Iterable[ValidLayer],
    residual: Collection[int],
    joint: JointLayers,
    reduce: Reduction,
) -> torch.Tensor:
    """``reduce(joint(path(x)))`` without gradients, the volume going through the joint layers a few planes at a time.

    On the CPU in float32, with one sample, planes go through the path a few at a time too, and through the joint layers
    as they come if these are one chain of 1³ layers, which takes no memory; else the joint layers, the widest ones, get
    as many planes as make a small piece.

    Args:
        x: (B, C, D, H, W), or (B, C, H, W).
        path: the valid layers, one after another.
        layers: the same by themselves.
        residual: those to whose output the input of the layer before is added; see `PlaneStream`.
        joint: what follows, `joint.lost` planes fewer than it is given.
        reduce: of the logits of a piece.

    Returns:
        (B, C', D', H', W').
    """
    few = streams(x)
    lost, kept, reduced = joint.lost, None, []
    for first, given in PlaneStream(layers, residual).through(x) if few else [(0, path(x))]:
        planes = given if kept is None else torch.cat([kept, given], dim=2)
        begin, count = first + given.shape[2] - planes.shape[2], planes.shape[2] - lost
        at_once = count
        if not (few and joint.chained and lost == 0):
            at_once = max(1, (GPU_PIECE_VOXELS if x.is_cuda else PIECE_VOXELS) // planes[0, 0, 0].numel())
            at_once = at_once if lost == 0 else -(-at_once // LEAST_PLANES) * LEAST_PLANES
        for start in range(0, count, at_once):
            piece = planes.narrow(2, start, min(at_once, count - start) + lost)
            reduced.append(reduce(joint(piece, begin + start)))
        if few and lost:
            kept = planes.narrow(2, max(count, 0), planes.shape[2] - max(count, 0)).clone()
    return reduced[0] if len(reduced) == 1 else torch.cat(reduced, dim=2)


def planes_at_once(x: torch.Tensor) -> int:
    """How many planes of ``x`` (1, C, D, H, W) are best pushed at once, a multiple of four.

    >>> planes_at_once(torch.empty(1, 1, 300, 250, 250)), planes_at_once(torch.empty(1, 1, 300, 600, 600))
    (8, 4)
    """
    return max(VOXELS // x[0, 0, 0].numel() // LEAST_PLANES, 1) * LEAST_PLANES


class PlaneStream:
    """Planes pushed into the first layer come out of the last one, less two for each layer at the beginning.

    What a residual layer adds, the input of the layer before without two voxels at every face, is at hand: it is among
    the planes that the layer before was given last, which are two more than it gave.

    Args:
        layers: valid 3³ layers.
        residual: the layers, counted from 1, to whose output the input of the layer before is added, channels of
            zeros after its own.
    """

    def __init__(self, layers: Iterable[ValidLayer], residual: Collection[int] = ()) -> None:
        self.layers = list(layers)
        self.residual = frozenset(residual)
        self._kept: list[torch.Tensor | None] = [None] * len(self.layers)
        self._spare = Spare()
        self._whole = [self._whole_channels(number) for number in range(1, len(self.layers) + 1)]

    def _whole_channels(self, number: int) -> int:
        """Channels of a layer's result, where they are added to more with zeros that make them whole vectors."""
        channels, adding = self.layers[number - 1].out_channels, number + 2
        if adding not in self.residual or adding > len(self.layers):
            return channels
        most = self.layers[adding - 1].out_channels
        return channels if channels == most else min(in_eights(channels), most)

    def push(self, planes: torch.Tensor) -> torch.Tensor | None:
        """The next planes (1, C, n, H, W) to those that the last layer gives for them; None if there are none yet.

        The result holds until the next push.
        """
        x = planes if self._kept[0] is None else torch.cat([self._kept[0], planes], dim=2)
        entry = whole = x
        turns = 3 if self.residual else 2  # what is read, what is written, and the input of the layer before
        for number, layer in enumerate(self.layers, start=1):
            self._kept[number - 1] = x.narrow(2, max(x.shape[2] - KEPT, 0), min(KEPT, x.shape[2])).clone()
            count = x.shape[2] - KEPT
            if count < 1:
                return None
            before = self._kept[number] if number < len(self.layers) else None
            first = 0 if before is None else before.shape[2]
            size = (first + count, x.shape[3] - 2, x.shape[4] - 2)
            target = self._spare.take(f"planes {number % turns}", (1, self._whole[number - 1], *size))
            y = target.narrow(1, 0, layer.out_channels)
            if before is not None:
                y.narrow(2, 0, first).copy_(before)
            layer(x, out=y.narrow(2, first, count), add=_middle(entry, count) if number in self.residual else None)
            target.narrow(1, layer.out_channels, target.shape[1] - layer.out_channels).zero_()
            entry, whole, x = whole, target, y
        return x

    def through(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The output for ``x`` (1, C, D, H, W), some planes at a time, each time with the number of the first one."""
        count, done = planes_at_once(x), 0
        for start in range(0, x.shape[2], count):
            y = self.push(x.narrow(2, start, min(count, x.shape[2] - start)))
            if y is not None:
                yield done, y
                done += y.shape[2]


def _middle(entry: torch.Tensor, count: int) -> torch.Tensor:
    """Of the input of the layer before, the voxels under the next ``count`` planes of the result."""
    last = entry.shape[2] - KEPT
    return entry[:, :, last - count : last, KEPT:-KEPT, KEPT:-KEPT]
