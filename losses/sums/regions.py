"""Sums over the region of each connected component, with their analytic gradient.

The volume goes by in the same pieces as for the table of sums (`pieces.py`), and no one-hot tensor of it is built. A
region is a number from 0 for each voxel and foreground class, so one weighted count of the numbers sums all regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rarevox.losses.sums.checks import check_values
from rarevox.losses.sums.chunks import PieceExtremes, Span, Volume, merge_extremes, piece_extremes, softmax_piece
from rarevox.losses.sums.taken import take_down
from rarevox.losses.sums.workers import each_piece


class RegionSums(NamedTuple):
    """Sums over the voxels of each region, (B, F, R), and over all voxels of each sample, (B,).

    Attributes:
        voxels: Σ w.
        probability: Σ w p.
        reference: Σ w r.
        intersection: Σ w p r.
        cross_entropy: −Σ w log p of the label (nats), of the sample.
        weight: Σ w, of the sample.
    """

    voxels: Tensor
    probability: Tensor
    reference: Tensor
    intersection: Tensor
    cross_entropy: Tensor
    weight: Tensor


# The places of the first four where they are stacked, and those of the last two.
_VOXELS, _P, _R, _PR = range(4)
_CE, _WEIGHT = range(2)


def region_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    regions: Tensor,
    *,
    sigmoid: bool = False,
    ignore_index: int | None = None,
) -> RegionSums:
    """Sum probabilities, references and their products over each region, differentiably.

    Args:
        logits, labels, weight, ignore_index: as of :func:`rarevox.losses.overlap_sums`.
        regions: (B, F, *spatial), for each foreground class the region that a voxel lies in, whole numbers from 0.
        sigmoid: one binary logit.

    Returns:
        The sums, float64 where the device has it; R is the largest region and one more.

    Raises:
        ValueError, NonFiniteLogitsError: values that :func:`rarevox.losses.overlap_sums` refuses; regions below 0, or
            not whole numbers.

    >>> logits = torch.zeros(1, 2, 4)  # p = 1/2 everywhere
    >>> labels, regions = torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 0, 1]]])
    >>> sums = region_sums(logits, labels, None, regions)
    >>> sums.voxels.tolist(), sums.reference.tolist(), sums.intersection.tolist()
    ([[[3.0, 1.0]]], [[[2.0, 1.0]]], [[[1.0, 0.5]]])
    """
    whole, count = check_regions(regions)
    options = _Options(sigmoid, ignore_index, regions=count)
    with torch.autocast(logits.device.type, enabled=False):
        of_regions, of_samples = _RegionSums.apply(logits, labels, weight, whole, options)
    return RegionSums(*of_regions, *of_samples)


class _Options(NamedTuple):
    sigmoid: bool
    ignore_index: int | None
    regions: int


class _Context(Protocol):
    """What the forward pass leaves for the backward pass."""

    options: _Options
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Autograd's own."""


def _counted(region: Tensor, weights: Sequence[Tensor], regions: int) -> Sequence[Tensor]:
    """The sum of each of the weights (n,) over each region, (R,) each."""
    if not region.is_cuda:
        return [torch.bincount(region, values, minlength=regions) for values in weights]
    # There each bincount would wait for the device, to learn the largest region.
    sums = torch.zeros(len(weights), regions, dtype=torch.float64, device=region.device)
    return sums.index_add_(1, region, torch.stack(list(weights)).double()).unbind(0)


class _RegionSums(torch.autograd.Function):
    """(4, B, F, R) sums of the regions and (2, B) sums of the samples, of the logits."""

    @staticmethod
    def forward(
        ctx: _Context, logits: Tensor, labels: Tensor, weight: Tensor | None, regions: Tensor, options: _Options
    ) -> tuple[Tensor, Tensor]:
        volume = Volume(logits, labels, weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index)
        take_down("PyTorch's operations (no kernel sums over regions of components)")
        samples, structures = regions.shape[:2]
        shape = (4, samples, structures, options.regions)
        of_regions = torch.zeros(shape, dtype=volume.accumulator, device=logits.device)
        of_samples = torch.zeros((2, samples), dtype=volume.accumulator, device=logits.device)
        flat_regions = regions.reshape(samples, structures, -1)

        def work(span: Span) -> tuple[Tensor, Tensor, PieceExtremes]:
            piece = volume.piece(span)
            r = volume.reference(piece.labels)
            soft = softmax_piece(piece.logits)
            w = torch.ones_like(soft.total) if piece.weight is None else piece.weight
            part = flat_regions[span.sample, :, volume.voxels(span)]
            counts = [
                count
                for p_of, r_of, region in zip(soft.probability[1:], r[1:], part, strict=True)
                for count in _counted(region, (w, p_of * w, r_of * w, p_of * r_of * w), options.regions)
            ]
            surprisal = soft.surprisal(piece.logits).mul_(r).sum(0)
            of_sample = torch.stack(((surprisal * w).sum(), w.sum()))
            return torch.stack(counts).view(structures, 4, -1).transpose(0, 1), of_sample, piece_extremes(piece)

        spans = list(volume.spans())
        done = each_piece(work, spans, threads=volume.threads)
        for span, (counts, of_sample, _) in zip(spans, done, strict=True):
            of_regions[:, span.sample] += counts
            of_samples[:, span.sample] += of_sample
        check_values(merge_extremes([extremes for *_, extremes in done]), volume.classes)
        ctx.save_for_backward(logits, labels, weight, regions)
        ctx.options = options
        return of_regions, of_samples

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_regions: Tensor, grad_samples: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weight, regions = ctx.saved_tensors
        options = ctx.options
        volume = Volume(logits, labels, weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index)
        grad = torch.empty_like(logits)
        grad_flat = grad.view(volume.shape)
        flat_regions = regions.reshape(*regions.shape[:2], -1)
        g = grad_regions.to(volume.dtype)
        g_ce = grad_samples[_CE].to(volume.dtype)

        def work(span: Span) -> None:
            piece = volume.piece(span)
            r = volume.reference(piece.labels)
            p = softmax_piece(piece.logits).probability
            # The derivative by each probability is g_P + r g_PR of the voxel's region; class 0 has no regions.
            d = torch.zeros_like(p)
            part = flat_regions[span.sample, :, volume.voxels(span)]
            for index, region in enumerate(part):
                of_p, of_pr = g[_P, span.sample, index][region], g[_PR, span.sample, index][region]
                torch.addcmul(of_p, r[index + 1], of_pr, out=d[index + 1])
            # Through the softmax as in `pieces.write_gradient`: p (d − Σ p d) + g_CE (p − r).
            d *= p
            d.addcmul_(p, d.sum(0) - g_ce[span.sample], value=-1).sub_(r * g_ce[span.sample])
            if piece.weight is not None:
                d *= piece.weight
            place = volume.at(grad_flat, span)
            place.copy_(d[-place.shape[0] :].view(place.shape))  # with sigmoid the row of [0, z] that is a logit

        each_piece(work, volume.spans(), threads=volume.threads)
        return grad, None, None, None, None


def check_regions(regions: Tensor) -> tuple[Tensor, int]:
    """Regions as int64, and the largest and one more: one number for all samples and classes, so that every count has
    the same length.

    Raises:
        ValueError: a region below 0, or not a whole number.
    """
    whole = regions.to(torch.int64)
    if regions.is_floating_point() and not torch.equal(whole.to(regions.dtype), regions):
        raise ValueError("component regions hold values that are not whole numbers; resample them by nearest neighbour")
    least, most = torch.stack(whole.aminmax()).tolist()  # both in one transfer from a device
    if least < 0:
        raise ValueError(f"component regions reach down to {least}; expected numbers from 0")
    return whole, most + 1
