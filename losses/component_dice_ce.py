"""Component-wise Dice and cross-entropy: every lesion counts alike, whatever its size."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rarevox.losses.combined import CombinedLoss
from rarevox.losses.sums.checks import check_shapes, check_values
from rarevox.losses.sums.chunks import Extremes, Span, Volume, merge_extremes, piece_extremes, softmax_piece
from rarevox.losses.sums.table import SumTable
from rarevox.losses.sums.workers import each_piece
from rarevox.losses.table_loss import ratio, scalar


class ComponentDiceCELoss(CombinedLoss):
    """2 (α DL_c + (1 − α) CE), DL_c the Dice loss inside the region of each connected component, averaged.

    DL_c = mean over foreground classes of the mean over regions k of 1 − 2 Σ_k p r / (Σ_k p + Σ_k r), where region k
    holds the voxels nearest to component k (`rarevox.transforms.component_regions`). A lesion of 10 voxels then pulls
    as hard as one of 10,000.

    The labels carry the regions: (B, C, *spatial), channel 0 the class indices, channel c the regions of class c, as
    whole numbers from 0; as `rarevox.transforms.ComponentRegionsd` makes them.

    Empty rule: a region without reference (a class that is absent, or a lesion that the patch has cut off) costs the
    share of the region claimed, Σ_k p / N_k.

    Args:
        alpha: the share of the Dice term; may be moved while training.
        batch: average over the regions of the whole batch (this process's), rather than over those of each sample
            first; the cross-entropy too.
        sigmoid: one binary logit; labels (B, 2, *spatial).
        ignore_index: voxels with this label in channel 0 count for nothing.

    Raises:
        ValueError: from ``forward``: as :func:`rarevox.losses.overlap_sums`, regions below 0 or not whole numbers, or
            ``sigmoid`` with more than one logit.

    Source: Jaus et al., "Every component counts", 2024 (regions); Kofler et al., "blob loss", IPMI 2023.

    >>> labels = torch.tensor([[[1, 0, 0, 0, 0, 1]], [[1, 1, 1, 2, 2, 2]]]).view(1, 2, 6)
    >>> logits = torch.full((1, 2, 6), -50.0)  # the first lesion found exactly, the second missed: (0 + 1) / 2
    >>> logits[0, 0, 1:], logits[0, 1, 0] = 50.0, 50.0
    >>> ComponentDiceCELoss().terms(logits, labels)["component_dice"].item()
    0.5
    """

    needs_regions = True

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        batch: bool = False,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(alpha=alpha, batch=batch, include_background=False, sigmoid=sigmoid, ignore_index=ignore_index)

    def terms(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """``component_dice`` and ``cross_entropy`` as scalars, unweighted, from one pass over the volume."""
        classes = 2 if self.sigmoid else logits.shape[1]
        if self.sigmoid and logits.shape[1] != 1:
            raise ValueError(f"logits have {logits.shape[1]} channels; the component-wise loss takes one binary logit")
        if labels.ndim < 3 or labels.shape[1] != classes:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; logits of shape {tuple(logits.shape)} need {classes} "
                "channels: the class indices, then the component regions of each foreground class"
            )
        check_shapes(logits, labels[:, :1], weight, sigmoid=self.sigmoid)
        regions = check_regions(labels[:, 1:])
        # One number for each region of each sample and class, so that a single count sums them all.
        count = int(regions.max()) + 1
        with torch.autocast(logits.device.type, enabled=False):
            sums, entropy = _RegionSums.apply(
                logits, labels[:, :1], weight, regions, _Options(self.sigmoid, self.ignore_index, count)
            )
            return {
                "component_dice": scalar(self._region_dice(sums), logits),
                "cross_entropy": scalar(self._entropy(entropy), logits),
            }

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss as a scalar; shapes as in the class's description."""
        return self.mix(self.terms(logits, labels, weight))

    def _region_dice(self, sums: Tensor) -> Tensor:
        """(4, B, F, regions) sums to one cost for each sample, or one in all with ``batch``."""
        voxels, p, r, pr = sums.transpose(1, 2).flatten(2, 3).unsqueeze(1) if self.batch else sums
        cost = torch.where(r > 0, ratio(p + r - 2 * pr, p + r), ratio(p, voxels))
        there = (voxels > 0).to(cost.dtype)
        return ratio((cost * there).sum(-1), there.sum(-1)).mean(-1)

    def _entropy(self, entropy: Tensor) -> Tensor:
        """(2, B) sums of the cross-entropy and the weights to one cost for each sample, or one in all."""
        total, voxels = entropy.sum(1, keepdim=True) if self.batch else entropy
        return ratio(total, voxels)

    def term_costs(self, table: SumTable) -> dict[str, Tensor]:
        """Not available: components cannot be told apart in a table of whole-volume sums.

        Raises:
            TypeError: always; call the loss, or ``terms``, on logits and labels.
        """
        raise TypeError("ComponentDiceCELoss needs logits and labels with regions; a SumTable holds no components")


class _Options(NamedTuple):
    sigmoid: bool
    ignore_index: int | None
    regions: int


class _RegionSums(torch.autograd.Function):
    """(4, B, F, regions): Σw, Σwp, Σwr, Σwpr of each region; and (2, B): −Σ w log p of the label, Σ w."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor | None, regions: Tensor, options: _Options
    ) -> tuple[Tensor, Tensor]:
        volume = Volume(logits, labels, weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index)
        samples, structures = regions.shape[:2]
        sums = torch.zeros(4, samples, structures, options.regions, dtype=torch.float64, device=logits.device)
        entropy = torch.zeros(2, samples, dtype=torch.float64, device=logits.device)
        flat_regions = regions.reshape(*regions.shape[:2], -1)

        def work(span: Span) -> tuple[Tensor, Tensor, Extremes]:
            piece = volume.piece(span)
            r = volume.reference(piece.labels)
            soft = softmax_piece(piece.logits)
            w = torch.ones_like(soft.total) if piece.weight is None else piece.weight
            part = flat_regions[span.sample, :, volume.voxels(span)]
            counts = [
                torch.bincount(region, values, minlength=options.regions)
                for p_of, r_of, region in zip(soft.probability[1:], r[1:], part, strict=True)
                for values in (w, p_of * w, r_of * w, p_of * r_of * w)
            ]
            surprise = soft.surprise(piece.logits).mul_(r).sum(0)
            of_entropy = torch.stack(((surprise * w).sum(), w.sum()))
            return torch.stack(counts).view(structures, 4, -1).transpose(0, 1), of_entropy, piece_extremes(piece)

        spans = list(volume.spans())
        done = each_piece(work, spans, threads=volume.threads)
        for span, (counts, of_entropy, _) in zip(spans, done, strict=True):
            sums[:, span.sample] += counts
            entropy[:, span.sample] += of_entropy
        extremes = [seen for *_, seen in done]
        check_values(merge_extremes(extremes), volume.classes)
        ctx.save_for_backward(logits, labels, weight, regions)
        ctx.options = options
        return sums, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weight, regions = ctx.saved_tensors
        options: _Options = ctx.options
        volume = Volume(logits, labels, weight, sigmoid=options.sigmoid, ignore_index=options.ignore_index)
        grad = torch.empty_like(logits)
        grad_flat = grad.view(volume.shape)
        flat_regions = regions.reshape(*regions.shape[:2], -1)
        g = grad_sums.to(volume.dtype)

        def work(span: Span) -> None:
            piece = volume.piece(span)
            r = volume.reference(piece.labels)
            p = softmax_piece(piece.logits).probability
            d = torch.zeros_like(p)
            part = flat_regions[span.sample, :, volume.voxels(span)]
            for index, region in enumerate(part):
                of_p, of_pr = g[1, span.sample, index][region], g[3, span.sample, index][region]
                torch.addcmul(of_p, r[index + 1], of_pr, out=d[index + 1])
            d *= p
            pull = grad_entropy[0, span.sample].to(volume.dtype)
            d.addcmul_(p, d.sum(0) - pull, value=-1).sub_(r * pull)
            if piece.weight is not None:
                d *= piece.weight
            place = volume.at(grad_flat, span)
            place.copy_(d[-place.shape[0] :].view(place.shape))

        each_piece(work, volume.spans(), threads=volume.threads)
        return grad, None, None, None, None


def check_regions(regions: Tensor) -> Tensor:
    """Regions as int64.

    Raises:
        ValueError: a region below 0, or not a whole number.
    """
    whole = regions.to(torch.int64)
    if regions.is_floating_point() and not torch.equal(whole.to(regions.dtype), regions):
        raise ValueError("component regions hold values that are not whole numbers; resample them by nearest neighbour")
    if int(whole.min()) < 0:
        raise ValueError(f"component regions reach down to {int(whole.min())}; expected numbers from 0")
    return whole
