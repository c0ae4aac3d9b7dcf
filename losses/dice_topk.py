"""Dice and the cross-entropy of the hardest voxels together."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.dice_ce import DiceCELoss
from rarevox.losses.sums import SumTable
from rarevox.losses.sums.checks import check_shapes
from rarevox.losses.sums.nested import is_nested, nested_labels
from rarevox.losses.sums.plain import refuse_recording
from rarevox.losses.sums.voxel_entropy import voxel_cross_entropy
from rarevox.losses.table_loss import table_for


class DiceTopKLoss(DiceCELoss):
    """2 (α DL + (1 − α) CE_k), CE_k the cross-entropy averaged over the k % of voxels where it is largest.

    The voxels are chosen among those of positive weight, over the batch with ``batch`` (each process of a distributed
    run over its own), else in each sample; at least one is. No gradient flows through the choice.

    DL is :class:`rarevox.losses.DiceLoss`, whose empty rule holds; CE_k needs none (see
    :class:`rarevox.losses.CrossEntropyLoss`).

    Args:
        percent: k, above 0 and up to 100 (100 is Dice and cross-entropy).
        alpha, squared, batch, include_background, sigmoid, ignore_index: see :class:`rarevox.losses.DiceCELoss`.

    Raises:
        ValueError: k outside 0 to 100.

    Source: Wu, Shen, van den Hengel 2016 (TopK); nnU-Net's Dice + TopK 10.

    >>> logits = torch.tensor([[[0.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]]])  # one undecided voxel of four: log 2
    >>> loss = DiceTopKLoss(percent=25)
    >>> round(loss.terms(logits, torch.zeros(1, 1, 4))["cross_entropy"].item(), 4)
    0.6931
    """

    def __init__(
        self,
        *,
        percent: float = 10.0,
        alpha: float = 0.5,
        squared: bool = False,
        batch: bool = False,
        include_background: bool = True,
        sigmoid: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            alpha=alpha,
            squared=squared,
            batch=batch,
            include_background=include_background,
            sigmoid=sigmoid,
            ignore_index=ignore_index,
        )
        if not 0 < percent <= 100:
            raise ValueError(f"percent={percent!r} is out of range; expected a number above 0 and up to 100")
        self.percent = float(percent)

    def table(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> SumTable:
        """The sums, with a cross-entropy column whose mean over all voxels is the mean over the hardest ones."""
        refuse_recording(self, "chooses as many voxels as the labels leave")
        check_shapes(logits, labels, weight, sigmoid=self.sigmoid)
        each, ignored = labels, self.ignore_index
        if is_nested(logits, labels, sigmoid=self.sigmoid):
            each, ignored = nested_labels(labels, logits.shape[1], ignored)
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            entropy, counted = voxel_cross_entropy(logits, each, weight, sigmoid=self.sigmoid, ignore_index=ignored)
            hardest = hardest_weight(entropy, counted, self.percent / 100, batch=self.batch)
        return table_for(self, self.columns, logits, labels, weight, entropy_weight=hardest.view(each.shape))


# A share of a count that is a whole number but for roundoff, 0.1 · 30 say, is that number.
_ROUNDOFF = 1e-6


def _choose_on_device(chosen: Tensor, candidates: Tensor, counted: Tensor, share: float) -> None:
    """The same for one group (voxels,), written to ``chosen``, where nobody waits to learn how many voxels count."""
    count = (counted > 0).sum(dtype=torch.float64)
    wanted = (share * count + _ROUNDOFF).floor().clamp(min=1)
    order = candidates.argsort(descending=True)
    rank = torch.arange(len(order), device=order.device)
    chosen.scatter_(0, order, torch.where(rank < wanted, counted[order], 0))
    # Where nothing counts the one voxel that was chosen weighs 0, and 0 / 0 must not be what comes out.
    total = chosen.sum()
    chosen.mul_(torch.where(total > 0, counted.sum() / total, 0))


def hardest_weight(cross_entropy: Tensor, weight: Tensor, share: float, *, batch: bool) -> Tensor:
    """A weight that is positive on the ``share`` of the counted voxels with the largest cross-entropy.

    Args:
        cross_entropy, weight: (B, L, voxels); voxels of weight 0 are never chosen.
        share: above 0, up to 1; the number chosen is rounded down, and is at least 1.
        batch: choose over axis 0 too.

    Returns:
        (B, L, voxels): the weight on the chosen voxels, scaled so that its sum over each group is that of ``weight``.

    >>> hardest_weight(torch.tensor([[[1.0, 3.0, 2.0, 0.0]]]), torch.ones(1, 1, 4), 0.5, batch=False).tolist()
    [[[0.0, 2.0, 2.0, 0.0]]]
    """
    samples, labels, voxels = cross_entropy.shape
    groups = cross_entropy.transpose(0, 1).reshape(labels, -1) if batch else cross_entropy.reshape(samples * labels, -1)
    weights = weight.transpose(0, 1).reshape(groups.shape) if batch else weight.reshape(groups.shape)
    chosen = torch.zeros_like(weights)
    for row, (values, counted) in enumerate(zip(groups, weights, strict=True)):
        candidates = values.masked_fill(counted <= 0, -torch.inf)
        if values.is_cuda:
            _choose_on_device(chosen[row], candidates, counted, share)
            continue
        count = int((counted > 0).sum())
        if count == 0:
            continue
        best = torch.topk(candidates, max(1, int(share * count + _ROUNDOFF)), sorted=False).indices
        chosen[row, best] = counted[best]
        chosen[row] *= counted.sum() / chosen[row].sum()
    return chosen.view(labels, samples, voxels).transpose(0, 1) if batch else chosen.view(samples, labels, voxels)
