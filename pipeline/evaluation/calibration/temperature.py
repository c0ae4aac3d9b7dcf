"""The temperature that makes probabilities frequencies, fitted on a sample of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.evaluation.calibration.measure import BINS, NEAR_MM, region_figures
from rarevox.pipeline.evaluation.calibration.nearness import near_boxes
from rarevox.pipeline.inference.native_watch import CERTAIN
from rarevox.transforms.labels import IGNORED, classes_from_values

VOXELS = 20_000
"""Voxels drawn from each case: enough that cases, not voxels, decide, and a few MB of memory."""
BOUNDS = (0.05, 20.0)


@dataclass(frozen=True)
class Sample:
    """Voxels with what the network said of them and what they are.

    Attributes:
        logs: (n, C) natural logarithms of the class probabilities at temperature 1.
        classes: (n,) class indices of the reference.
        weights: (n,) how many voxels each stands for.
        nested: whether classes are depths in nested regions, whose logits the temperature divides one by one.
    """

    logs: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    nested: bool = False

    def region_logits(self) -> np.ndarray:
        """(n, C − 1) ln P / (1 − P) of nested regions at temperature 1."""
        from scipy.special import logsumexp

        logs = self.logs.astype(np.float64)
        numbers = range(1, logs.shape[1])
        return np.stack([logsumexp(logs[:, k:], axis=1) - logsumexp(logs[:, :k], axis=1) for k in numbers], axis=1)


class VoxelSample:
    """Draw voxels of one case while its probabilities go by; a :class:`rarevox.pipeline.inference.watch.Watch`.

    They are drawn uniformly, without replacement, from the voxels near any structure: at most 10 mm along each axis
    from one of the reference, or with a probability of 1/15 or more of one (wherever they lie). Classes are not
    balanced: with weights by class the probabilities would become frequencies in a world with as many lesions as
    background.

    Args:
        label_values: the label value of each class, the background's first.
        reference: (X, Y, Z) labels on the scan's grid.
        spacing_mm: voxel edge lengths.
        voxels: how many at most.
        seed: of the draw.
        ignored: the label of voxels that nobody annotated, which are not drawn; None for none.

    Raises:
        ValueError: a label that is no class.
    """

    def __init__(
        self,
        label_values: Sequence[int],
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        voxels: int = VOXELS,
        seed: int = 0,
        ignored: int | None = None,
        nested: bool = False,
    ) -> None:
        self.nested = nested
        self.classes = classes_from_values(torch.from_numpy(np.ascontiguousarray(reference)), label_values, ignored)
        self.ignored = ignored
        self.near = near_boxes(reference, [tuple(label_values[1:])], spacing_mm, NEAR_MM)[0]
        self.voxels, self.seed = voxels, seed
        self.begin(reference.shape)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins: the draw begins anew.

        Raises:
            ValueError: the reference is on another grid.
        """
        if tuple(shape) != tuple(self.classes.shape):
            raise ValueError(f"the reference has {tuple(self.classes.shape)} voxels and the scan {tuple(shape)}")
        self.random = torch.Generator().manual_seed(self.seed)
        self.region = 0
        self.keys = torch.zeros(0, dtype=torch.double)
        self.logs: torch.Tensor | None = None
        self.drawn = torch.zeros(0, dtype=torch.long)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block: each of its voxels gets a random key, and those with the lowest keys of all stay."""
        likely = (log_probabilities[1:] >= float(np.log(1.0 / BINS))).any(0).cpu()
        close = self.near.block(where)
        chosen = likely if close is None else likely | torch.from_numpy(close)
        # Background by rule is so at any temperature, and a labelled voxel there would outweigh all others.
        chosen &= (log_probabilities[1:] > CERTAIN).any(0).cpu()
        if self.ignored is not None:
            chosen &= self.classes[where] != IGNORED
        logs = log_probabilities[:, chosen.to(log_probabilities.device)].T.float().cpu()
        keys = torch.rand(len(logs), generator=self.random, dtype=torch.double)
        classes = self.classes[where][chosen].long()
        self.region += len(logs)
        self.logs = logs if self.logs is None else torch.cat([self.logs, logs])
        self.keys, self.drawn = torch.cat([self.keys, keys]), torch.cat([self.drawn, classes])
        if len(self.keys) > self.voxels:
            kept = self.keys.topk(self.voxels, largest=False, sorted=False).indices
            self.logs, self.keys, self.drawn = self.logs[kept], self.keys[kept], self.drawn[kept]

    def sample(self) -> Sample:
        """What was drawn; each voxel stands for its share of the region."""
        count = len(self.drawn)
        logs = np.zeros((0, 0), np.float32) if self.logs is None else self.logs.numpy()
        weights = np.full(count, self.region / max(count, 1))
        return Sample(logs, self.drawn.numpy(), weights, self.nested)


def join(samples: Sequence[Sample]) -> Sample:
    """The samples of several cases as one."""
    held = [sample for sample in samples if len(sample.classes)]
    return Sample(
        np.concatenate([sample.logs for sample in held]),
        np.concatenate([sample.classes for sample in held]),
        np.concatenate([sample.weights for sample in held]),
        nested=held[0].nested,
    )


def negative_log_likelihood(sample: Sample, temperature: float) -> float:
    """The weighted mean of −ln softmax(ln p / T) of the true class, in nats; of nested regions the sum over them of
    −ln σ(±z / T), each being there or not.

    >>> half = Sample(np.log([[0.5, 0.5]]), np.array([0]), np.ones(1))
    >>> round(negative_log_likelihood(half, 3.0), 6)
    0.693147
    """
    from scipy.special import log_expit, log_softmax

    if sample.nested:
        logits = sample.region_logits() / temperature
        inside = sample.classes[:, None] >= np.arange(1, logits.shape[1] + 1)
        return float(-np.average(log_expit(np.where(inside, logits, -logits)).sum(1), weights=sample.weights))
    logs = log_softmax(sample.logs.astype(np.float64) / temperature, axis=1)
    return float(-np.average(logs[np.arange(len(logs)), sample.classes], weights=sample.weights))


def fit_temperature(sample: Sample) -> float:
    """The temperature from 0.05 to 20 with the lowest negative log-likelihood, which has one minimum in 1 / T.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    bounds = np.log(BOUNDS)
    found = minimize_scalar(
        lambda t: negative_log_likelihood(sample, float(np.exp(t))),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.exp(found.x))


def sample_calibration(sample: Sample, structures: Sequence[Sequence[int]], temperature: float) -> list[dict[str, Any]]:
    """ECE, MCE and Brier score of each structure over the sampled voxels at a temperature.

    Args:
        sample: the voxels.
        structures: the class indices of each, a union where there are several.
        temperature: that the probabilities are made with.
    """
    from scipy.special import expit, softmax

    if sample.nested:
        regions = np.pad(expit(sample.region_logits() / temperature), ((0, 0), (1, 1)))
        regions[:, 0] = 1.0
        probabilities = -np.diff(regions, axis=1)
    else:
        probabilities = softmax(sample.logs.astype(np.float64) / temperature, axis=1)
    figures = []
    for classes in structures:
        p, y = probabilities[:, list(classes)].sum(1), np.isin(sample.classes, list(classes)).astype(float)
        bins = np.minimum((p * BINS).astype(int), BINS - 1)
        rows = [np.bincount(bins, sample.weights * what, BINS) for what in (np.ones_like(p), p, y, (p - y) ** 2)]
        found = region_figures(np.stack(rows))
        figures.append({key: found[key] for key in ("ece", "mce", "brier")})
    return figures
