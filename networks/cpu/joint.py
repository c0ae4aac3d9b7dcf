"""The joint layers of DeepMedic in evaluation, with kernels for what a low path adds at its own resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from rarevox.networks.cpu.fold import Kept, fold
from rarevox.networks.cpu.plain import convolve
from rarevox.networks.cpu.pointwise import chain as pointwise
from rarevox.networks.cpu.wide import Wide, pointwise_convolution, widened_weight, widths
from rarevox.networks.cuda import affine
from rarevox.networks.cuda.launch import channels_last
from rarevox.networks.lattices.padding import WHOLE
from rarevox.networks.protocols import NormAct

Join = Callable[[torch.Tensor, int], torch.Tensor]
"""Some planes (B, C, D, H, W) of the path at full resolution and the number of the first one, to their logits."""


class JointUnit(NormAct, Protocol):
    """A convolution with norm and activation after it, which it is called as."""

    @property
    def conv(self) -> nn.Module:
        """The convolution."""

    def __call__(self, x: torch.Tensor, *, kept: Kept | None = None) -> torch.Tensor:
        """(B, C, *spatial) to (B, C', *spatial'), all three of them; ``kept`` is what earlier calls folded."""


class JointLayers(NamedTuple):
    """What `in_planes` takes: the layers, the planes that they lose, and whether they are one chain."""

    join: Join
    lost: int
    chained: bool

    def __call__(self, planes: torch.Tensor, first: int) -> torch.Tensor:
        """Logits (B, C', D − lost, …) of planes (B, C, D, …), of which ``first`` is the number of the first one."""
        return self.join(planes, first)


def joint_layers(
    plain: Join,
    units: Sequence[JointUnit],
    classifier: nn.Module,
    low: Sequence[torch.Tensor],
    factors: Sequence[int],
    size: Sequence[int],
    *,
    lost: int,
) -> JointLayers:
    """``plain`` without gradients, as one chain where its layers are foldable and the kernels apply.

    The first low path adds to the sums of the first joint layer, once for every block of its voxels. A first unit that
    loses planes runs by itself, and the chain begins after it.

    Args:
        plain: the definition.
        units: its layers without dropout, each with its norm and activation; none where these stand otherwise.
        classifier: its last layer.
        low: the outputs of the low paths.
        factors: the resolution of each.
        size: of the output at full resolution.
        lost: planes that the layers lose.
    """
    if low and units and not lost and affine.works(low[0]):
        return JointLayers(_coarse_apart(units, classifier, low, factors, size) or plain, lost, chained=False)
    if not low or not pointwise.applies(low[0], classifier.get_parameter("weight")):
        return JointLayers(plain, lost, chained=False)
    layers = [pointwise.layer_of(unit.conv, unit) for unit in units[1 if lost else 0 :]]
    known = [layer for layer in layers if layer is not None]
    if not known or len(known) < len(layers):
        return JointLayers(plain, lost, chained=False)
    known.append(pointwise.linear(classifier))
    if lost:
        return JointLayers(lambda x, first: pointwise.chain(units[0](beside(x, low, size, first)), known), lost, True)
    channels, weight = low[0].shape[1], known[0].weight
    coarse = pointwise.chain(low[0], [pointwise.plain(weight.narrow(1, channels, channels))], in_eights=True)
    fine = torch.cat([weight.narrow(1, 0, channels), weight[:, 2 * channels :]], dim=1)
    known[0] = known[0]._replace(weight=fine)

    def join(planes: torch.Tensor, first: int) -> torch.Tensor:
        x = beside(planes, low[1:], size, first)
        return pointwise.chain(x, known, coarse, factor=factors[0], before=first)

    return JointLayers(join, lost, chained=True)


def _coarse_apart(
    units: Sequence[JointUnit],
    classifier: nn.Module,
    low: Sequence[torch.Tensor],
    factors: Sequence[int],
    size: Sequence[int],
) -> Join | None:
    """The layers on a GPU, what the first low path adds to the first of them computed at its own resolution.

    It is read again where norm and activation are done: its voxels are neither repeated nor written beside the others.
    None where the norm cannot be folded.
    """
    (first_unit, *rest), folded, kept = units, fold(units[0]), Kept()
    if folded is None:
        return None
    weight = first_unit.conv.get_parameter("weight") * folded.scale.view(-1, *(1,) * (low[0].ndim - 1))
    own, of_low, *others = weight.split(weight.shape[1] // (1 + len(low)), dim=1)
    coarse = convolve(first_unit.conv, low[0], WHOLE, widened_weight(of_low, low[0], Wide()))
    fine = widened_weight(torch.cat([own, *others], dim=1), low[0], Wide(widths(low[0], low[1:])))

    def join(planes: torch.Tensor, first: int) -> torch.Tensor:
        y = convolve(first_unit.conv, beside(planes, low[1:], size, first), WHOLE, fine)
        added = affine.Added(coarse, factors[0], first, before=True)
        y = y.contiguous(memory_format=channels_last(y))
        y = affine.affine_act(y, None, folded.shift, folded.slope, add=added, in_place=True)
        for unit in rest:
            y = unit(y, kept=kept)
        return pointwise_convolution(y, classifier)

    return join


def beside(full: torch.Tensor, low: Sequence[torch.Tensor], size: Sequence[int], first: int) -> torch.Tensor:
    """Planes of the path at full resolution with those of low ones, their voxels repeated, after its channels.

    Args:
        full: (B, C, D, H, W), or (B, C, H, W): some planes of a volume of ``size``.
        low: (B, Cᵢ, d, h, w), the whole output of each low path.
        size: of the volume, divisible by the low paths' sizes.
        first: the number of the first plane.

    >>> beside(torch.zeros(1, 1, 2, 2), [torch.tensor([[[[5.0], [6.0]]]])], (4, 2), first=1)[0, 1].tolist()
    [[5.0, 5.0], [6.0, 6.0]]
    """
    if not low:
        return full
    return torch.cat([full, *(_planes(path, size, first, first + full.shape[2]) for path in low)], dim=1)


def _planes(path: torch.Tensor, size: Sequence[int], first: int, last: int) -> torch.Tensor:
    """Planes ``first`` to ``last`` of a path's output, each of its voxels repeated so that the whole has ``size``."""
    factor = size[0] // path.shape[2]
    low = path.narrow(2, first // factor, -(-last // factor) - first // factor)
    fine = F.interpolate(low, size=(low.shape[2] * factor, *size[1:]), mode="nearest")
    return fine.narrow(2, first % factor, last - first)
