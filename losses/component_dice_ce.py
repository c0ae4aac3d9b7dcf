"""Component-wise Dice and cross-entropy: every lesion counts alike, whatever its size."""

from __future__ import annotations

import torch
from torch import Tensor

from rarevox.losses.arithmetic import ratio, scalar
from rarevox.losses.combined import CombinedLoss
from rarevox.losses.sums.checks import check_shapes
from rarevox.losses.sums.nested import is_nested, nested_labels
from rarevox.losses.sums.plain import refuse_recording
from rarevox.losses.sums.regions import RegionSums, region_sums


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
        sigmoid: one binary logit; labels (B, 2, *spatial). Of C nested regions C logits; labels (B, C + 1, *spatial),
            channel 0 the depths from 0 to C, channel c the regions of the components of depth ≥ c; the loss is the mean
            over the nested regions.
        ignore_index: voxels with this label in channel 0 count for nothing.

    Raises:
        ValueError: from ``forward``: as :func:`rarevox.losses.overlap_sums`, regions below 0 or not whole numbers, or
            channels that do not fit the logits.

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
        refuse_recording(self, "sums over as many regions as the labels hold")
        classes = logits.shape[1] + self.sigmoid
        if labels.ndim < 3 or labels.shape[1] != classes:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; logits of shape {tuple(logits.shape)} need {classes} "
                "channels: the class indices, then the component regions of each foreground class"
            )
        names, regions = labels[:, :1], labels[:, 1:]
        check_shapes(logits, names, weight, sigmoid=self.sigmoid)
        if not is_nested(logits, names, sigmoid=self.sigmoid):
            sums = [region_sums(logits, names, weight, regions, sigmoid=self.sigmoid, ignore_index=self.ignore_index)]
        else:
            each, ignored = nested_labels(names, logits.shape[1], self.ignore_index)
            sums = [
                region_sums(*problem, sigmoid=True, ignore_index=ignored)
                for problem in zip(
                    logits.split(1, 1), each.split(1, 1), [weight] * (classes - 1), regions.split(1, 1), strict=True
                )
            ]
        dice = torch.stack([self._region_dice(one) for one in sums])
        entropy = torch.stack([self._cross_entropy(one) for one in sums])
        return {"component_dice": scalar(dice, logits), "cross_entropy": scalar(entropy, logits)}

    def _region_dice(self, sums: RegionSums) -> Tensor:
        """One cost for each sample, or one in all with ``batch``: the mean over its regions, then over its classes."""
        voxels, p, r, pr = sums[:4]
        if self.batch:  # the regions of all samples as those of one: (B, F, R) to (1, F, B R)
            voxels, p, r, pr = (column.transpose(0, 1).flatten(1)[None] for column in sums[:4])
        cost = torch.where(r > 0, ratio(p + r - 2 * pr, p + r), ratio(p, voxels))
        # Samples have different numbers of regions; those beyond a sample's own hold no voxels and do not count.
        there = (voxels > 0).to(cost.dtype)
        return ratio((cost * there).sum(-1), there.sum(-1)).mean(-1)

    def _cross_entropy(self, sums: RegionSums) -> Tensor:
        """One cost for each sample, or one in all with ``batch``: the mean over its voxels."""
        total, weight = sums.cross_entropy, sums.weight
        if self.batch:
            total, weight = total.sum(0, keepdim=True), weight.sum(0, keepdim=True)
        return ratio(total, weight)
