"""The scores of labelled voxels, and labels without the components that are not sure enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms.bounding_box import bounding_box
from rarevox.transforms.decision import Decision, shaped

_NEIGHBOURS = np.ones((3, 3, 3), bool)  # 26, as in the lesion-wise metrics


class LabelScores:
    """Gather the scores of the voxels that get a structure's label, while the probabilities of a scan go by.

    Memory: 9 to 13 bytes for each labelled voxel, none for the background.

    Args:
        decision: which voxels are labelled.

    Attributes:
        places: (n,) flat indices (C order) of the labelled voxels.
        classes: (n,) their class.
        scores: (n,) their score, float32.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.begin((0, 0, 0))

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins; nothing is labelled yet."""
        self.shape = tuple(int(n) for n in shape)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Natural logarithms (C, x, y, z) of the class probabilities at ``where`` in the scan."""
        weights = shaped(self.decision.log_weights, log_probabilities)
        found = (log_probabilities[1:] + weights[1:]).amax(0) > log_probabilities[0]
        if not bool(found.any()):
            return
        logs = log_probabilities[:, found].float()
        weighted = logs + shaped(self.decision.log_weights, logs)
        classes = weighted.argmax(0)
        own = logs.gather(0, classes[None])[0]
        rivals = weighted.scatter(0, classes[None], -math.inf).amax(0)
        inner = found.nonzero().T.cpu().numpy()
        places = np.ravel_multi_index(
            tuple(axis + span.start for axis, span in zip(inner, where, strict=True)), self.shape
        )
        kind = np.uint8 if len(log_probabilities) <= 256 else np.int16
        self._parts.append(
            (_small(places, self.shape), classes.cpu().numpy().astype(kind), torch.sigmoid(own - rivals).cpu().numpy())
        )

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices and scores of the voxels labelled as one class."""
        here = self.classes == number
        return self.places[here], self.scores[here]

    @property
    def places(self) -> np.ndarray:
        """See the class."""
        return self._joined(0, np.int64)

    @property
    def classes(self) -> np.ndarray:
        """See the class."""
        return self._joined(1, np.uint8)

    @property
    def scores(self) -> np.ndarray:
        """See the class."""
        return self._joined(2, np.float32)

    def _joined(self, which: int, kind: type) -> np.ndarray:
        parts = [part[which] for part in self._parts]
        return np.concatenate(parts) if parts else np.zeros(0, kind)


def _small(places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Flat indices in four bytes where the volume allows it."""
    return places.astype(np.uint32) if math.prod(shape) < 2**32 else places


def without_unsure(
    labels: np.ndarray, found: LabelScores, confidences: Mapping[int, float], values: Sequence[int]
) -> np.ndarray:
    """Labels without the components (26 neighbours) whose peak is below their structure's confidence.

    Args:
        labels: (X, Y, Z) label values.
        found: the scores of the same scan.
        confidences: class index → confidence.
        values: the label value of each class.

    Returns:
        A new array; ``labels`` itself where nothing is asked for.

    >>> found = LabelScores(Decision({"a": {"confidence": 0.9}}, ["a"])); found.begin((4, 1, 1))
    >>> p = torch.tensor([0.6, 0.1, 0.95, 0.7]).reshape(1, 4, 1, 1)
    >>> found.take(torch.cat([1 - p, p]).log(), (slice(0, 4), slice(0, 1), slice(0, 1)))
    >>> without_unsure(np.array([7, 0, 7, 7]).reshape(4, 1, 1), found, {1: 0.9}, [0, 7]).ravel().tolist()
    [0, 0, 7, 7]
    """
    if not confidences:
        return labels
    out = np.array(labels)
    places, classes, scores = found.places, found.classes, found.scores
    for number, least in confidences.items():
        box = bounding_box(out == values[number])
        if box is None:
            continue
        region = out[box]
        components, count = ndimage.label(region == values[number], _NEIGHBOURS)
        whole = np.unravel_index(places[classes == number], found.shape)
        inner = tuple(axis - span.start for axis, span in zip(whole, box, strict=True))
        inside = np.all([(axis >= 0) & (axis < n) for axis, n in zip(inner, region.shape, strict=True)], axis=0)
        peaks = np.zeros(count + 1)
        at = components[tuple(axis[inside] for axis in inner)]
        np.maximum.at(peaks, at, scores[classes == number][inside])
        stays = peaks >= least
        stays[0] = True
        region[~stays[components]] = 0
    return out
