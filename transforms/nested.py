"""Nested regions: a logit for each, and labels and probabilities of them that are nested in every voxel.

Regions k = 1 … K, the outermost first (whole tumour, core, enhancing), each hold the next. A network has one logit z_k
for each, p_k = σ(z_k), which nothing keeps from saying that a voxel is enhancing and no tumour. What comes out of it
here does not::

    P_k = min(p_1, …, p_k),    so that P_1 ≥ P_2 ≥ … ≥ P_K

The classes d = 0 … K are the *depths*: how many regions hold the voxel. Their probabilities are the differences,

    q_0 = 1 − P_1,    q_d = P_d − P_{d+1},    q_K = P_K,

which are not negative and add up to 1, so that means over flips and over the runs of an ensemble are again those of
nested regions: P_k = q_k + … + q_K. With thresholds t_k the label is the depth

    d = max{k : P_j > t_j for all j ≤ k},

so a voxel is in region k exactly where all its outer regions and it exceed their thresholds. (The largest q would be
another label: with P = (0.6, 0.3) the voxel is in region 1, and q_0 = 0.4 is the largest.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from rarevox.transforms.decision import Decision, shaped

CERTAIN = -1e4
"""The logarithm that stands for probability 0; exp() of it is 0 in any format."""


def depths(margins: torch.Tensor, axis: int = 1) -> torch.Tensor:
    """How many of the nested regions along ``axis``, the outermost first, hold each voxel; the axis stays, of size 1.

    Args:
        margins: positive inside a region: logits, where its threshold is 1/2.

    >>> depths(torch.tensor([[2.0, -1.0, 3.0]])).tolist()  # the third is not taken: the second does not hold the voxel
    [[1]]
    """
    return (margins.cummin(axis).values > 0).sum(axis, keepdim=True)


def depth_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """ln q of the depths 0 … K, (K + 1, …) float32, of the regions' logits (K, …).

    P_d − P_{d+1} = σ(a) σ(−b) (1 − e^{b−a}) with a ≥ b their logits: no difference of two numbers near each other.

    >>> depth_log_probabilities(torch.tensor([0.0, 9.0])).exp().tolist()  # P = (1/2, 1/2)
    [0.5, 0.0, 0.5]
    """
    nested = logits.float().cummin(0).values
    between = F.logsigmoid(nested[:-1]) + F.logsigmoid(-nested[1:]) + torch.log(-torch.expm1(nested[1:] - nested[:-1]))
    logs = torch.cat([F.logsigmoid(-nested[:1]), between, F.logsigmoid(nested[-1:])])
    return logs.clamp_min_(CERTAIN)


class NestedDecision(Decision):
    """Thresholds of nested regions, in place of those of structures that exclude one another; see the module.

    Args:
        points: region → ``threshold``, as of :class:`rarevox.transforms.Decision`.
        regions: the regions' names, the outermost first (a mapping from them will do).

    Raises:
        ValueError: as of that class; a ``confidence``, which only structures have.

    >>> decision = NestedDecision({"core": {"threshold": 0.2}}, ["whole", "core"])
    >>> decision.weighted(torch.tensor([0.4, 0.35, 0.25])).argmax().item()  # P = (0.6, 0.25)
    2
    """

    def __init__(self, points: Mapping[str, Any] | None, regions: Sequence[str] | Mapping[str, Any]) -> None:
        super().__init__(points, list(regions))
        if self.confidences:
            name = self.structures[min(self.confidences) - 1]
            raise ValueError(f"operating_points: {name} is a nested region, and these have thresholds, no confidence")

    def __bool__(self) -> bool:
        """Labels of nested regions are never simply the most probable class."""
        return True

    @property
    def logits(self) -> torch.Tensor:
        """The thresholds as logits, (K,)."""
        return torch.tensor([math.log(t / (1 - t)) for t in self.thresholds])

    def weighted(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Numbers (K + 1, …) whose largest is the label, of the probabilities (K + 1, …) of the depths."""
        regions = torch.stack([probabilities[number:].sum(0) for number in range(1, len(probabilities))])
        return at_depth(regions - shaped(torch.tensor(self.thresholds), regions))

    def weighted_logits(self, logits: torch.Tensor, temperature: float, axis: int = 0) -> torch.Tensor:
        """The same of the regions' logits, K of them along ``axis``, whose probabilities are σ(z / T)."""
        logits = logits.float()
        if not self.moves:  # nothing need be sent to a device
            return at_depth(logits, axis)
        logits = logits.cummin(axis).values
        return at_depth(logits - shaped(temperature * self.logits, logits, axis), axis)

    def leads(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The logit of P of region ``of``, from 1 on, of the logarithms (K + 1, …) of the depths' probabilities."""
        logs = logs.float()
        return logs[of:].logsumexp(0) - logs[:of].logsumexp(0)

    def sure_scores(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """P of region ``of`` where the regions around it hold the voxel, else 0: above its threshold a voxel is in it.

        >>> logs = torch.tensor([[0.6, 0.1], [0.1, 0.4], [0.3, 0.5]]).log()  # P_1 = (0.4, 0.9), P_2 = (0.3, 0.5)
        >>> [round(p, 6) for p in NestedDecision({}, ["whole", "core"]).sure_scores(logs, 2).tolist()]
        [0.0, 0.5]
        """
        return torch.sigmoid(self.sure_leads(logs, of))

    def sure_leads(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The logit of :meth:`sure_scores`, −∞ where a region around does not hold the voxel."""
        leads = self.leads(logs, of)
        for around in range(1, of):
            held = self.scores(logs, around) > self.thresholds[around - 1]
            leads = leads.where(held, leads.new_full((), -math.inf))
        return leads

    def classes(self, logs: torch.Tensor) -> torch.Tensor:
        """(…) depths that the thresholds give, of (K + 1, …) natural logarithms of the depths' probabilities."""
        within = [self.sure_scores(logs, of) > t for of, t in enumerate(self.thresholds, start=1)]
        return torch.stack(within).sum(0)


class RegionScores:
    """Gather the probabilities of the voxels labelled as a nested region, while those of a scan go by.

    The same for regions, which share voxels, as :class:`rarevox.transforms.label_scores.LabelScores`.

    Args:
        decision: which voxels are labelled.
    """

    def __init__(self, decision: NestedDecision) -> None:
        self.decision = decision
        self.begin((0, 0, 0))

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins; nothing is labelled yet."""
        self.shape = tuple(int(n) for n in shape)
        self._parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Natural logarithms (K + 1, x, y, z) of the depths' probabilities at ``where`` in the scan."""
        logs = log_probabilities.float()
        depth = self.decision.weighted(logs.exp()).argmax(0)
        for number in range(1, len(logs)):
            here = depth >= number
            inner = here.nonzero().T.cpu().numpy()
            places = np.ravel_multi_index(
                tuple(axis + span.start for axis, span in zip(inner, where, strict=True)), self.shape
            )
            scores = logs[number:, here].logsumexp(0).exp()
            self._parts.setdefault(number, []).append((places, scores.cpu().numpy()))

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices and probabilities of the voxels in region ``number``, from 1 on."""
        parts = self._parts.get(number, [])
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return np.concatenate([places for places, _ in parts]), np.concatenate([scores for _, scores in parts])


def at_depth(margins: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """1 at the depth that K margins along ``axis`` say, 0 at the K other depths; see :func:`depths`.

    >>> at_depth(torch.tensor([2.0, 1.0, -1.0, 5.0])).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    depth = depths(margins, axis)
    every = torch.arange(margins.shape[axis] + 1, device=margins.device)
    return (depth == shaped(every, depth, axis)).to(margins.dtype)
