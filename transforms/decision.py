"""From class probabilities to labels: the threshold of each structure, and the confidence that a component needs.

Classes c = 0 … C − 1, the background first, have probabilities p_c. With thresholds t_c (0 < t_c < 1; 1/2 where none is
given) the label of a voxel is::

    argmax_c w_c · p_c,    w_0 = 1,    w_c = (1 − t_c) / t_c

So a structure that competes with the background alone is there exactly where p_c > t_c; with thresholds of 1/2 the
label is the most probable class, whatever their number. The *score* of a structure in a voxel says the same of any
number of classes::

    s_c = p_c / (p_c + max_{k≠c} w_k · p_k)

the voxel is c exactly where s_c > t_c. With one structure s = p.

The *confidence* of a component (26 neighbours) of a structure is its peak, the largest score of its voxels, as in the
detection of lesions (Saha et al., Artificial intelligence and radiologists in prostate cancer detection on MRI
(PI-CAI), Lancet Oncology 2024; its evaluation takes the largest likelihood of a candidate). Components of less than a
structure's ``confidence`` become background.

Source of the weights: the label of the least expected cost, where a missed voxel of c costs w_c times a false one
(Elkan, The foundations of cost-sensitive learning, IJCAI 2001).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_LEAST = 1e-12
"""A threshold is no nearer to 0 or 1 than this."""
KNOWN = ("threshold", "confidence", "aim", "false_lesions")


class Decision:
    """Thresholds and confidences of structures; see the module.

    Args:
        points: structure → ``threshold`` (between 0 and 1), ``confidence`` (0 to 1), both optional; ``aim`` and
            ``false_lesions``, which say how they were chosen, change nothing. A mapping without entries is the most
            probable class.
        structures: the names of the classes 1, 2, ….

    Attributes:
        thresholds: of each structure, in order; 1/2 where none is given.
        confidences: class index → the least confidence of its components; only those above 0.

    Raises:
        ValueError: an unknown structure or entry, or a value outside its bounds.

    >>> decision = Decision({"lesion": {"threshold": 0.2}}, ["lesion"])
    >>> decision.weighted(torch.tensor([[0.7, 0.85], [0.3, 0.15]])).argmax(0).tolist()
    [1, 0]
    >>> bool(Decision({}, ["lesion"])), bool(decision)
    (False, True)
    """

    def __init__(self, points: Mapping[str, Any] | None, structures: Sequence[str]) -> None:
        read = read_points(points, structures)
        self.structures = list(structures)
        self.thresholds = [float(read.get(name, {}).get("threshold") or 0.5) for name in self.structures]
        self.confidences = {
            number: float(read[name]["confidence"])
            for number, name in enumerate(self.structures, start=1)
            if read.get(name, {}).get("confidence")
        }
        self.log_weights = torch.tensor([0.0, *(math.log((1 - t) / t) for t in self.thresholds)])

    def __bool__(self) -> bool:
        """Whether labels may differ from the most probable classes."""
        return self.moves or bool(self.confidences)

    @property
    def moves(self) -> bool:
        """Whether any threshold is not 1/2."""
        return any(t != 0.5 for t in self.thresholds)

    def weighted(self, probabilities: torch.Tensor) -> torch.Tensor:
        """w_c · p_c, whose largest is the label, of (C, …) probabilities."""
        return probabilities * shaped(self.log_weights.exp(), probabilities)

    def scores(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The score s_c of class ``of`` in every voxel.

        Args:
            logs: (C, …) natural logarithms of the probabilities.
            of: class index from 1 on.

        Returns:
            (…) from 0 to 1, float32.

        >>> logs = torch.tensor([0.3, 0.2, 0.5]).log()
        >>> [round(float(Decision({}, ["a", "b"]).scores(logs, c)), 4) for c in (1, 2)]  # 2/7, 5/8
        [0.2857, 0.625]
        """
        return torch.sigmoid(self.leads(logs, of))

    def sure_scores(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The score of class ``of`` above whose own threshold a voxel is labelled so, with the thresholds of the others
        as they are: here the score itself."""
        return self.scores(logs, of)

    def sure_leads(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The logit of :meth:`sure_scores`."""
        return self.leads(logs, of)

    def classes(self, logs: torch.Tensor) -> torch.Tensor:
        """(…) class indices that the thresholds give, of (C, …) natural logarithms of the probabilities."""
        return (logs + shaped(self.log_weights, logs)).argmax(0)

    def leads(self, logs: torch.Tensor, of: int) -> torch.Tensor:
        """The logit of the score, ln p_c − max_{k≠c} (ln w_k + ln p_k), (…) float32."""
        logs = logs.float()
        weighted = logs + shaped(self.log_weights, logs) if self.moves else logs
        rivals = [part.amax(0) for part in (weighted[:of], weighted[of + 1 :]) if len(part)]
        return logs[of] - (rivals[0] if len(rivals) == 1 else torch.maximum(*rivals))


def shaped(weights: torch.Tensor, like: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """(C,) weights so that they multiply the axis ``axis`` of a tensor, in its type and on its device."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return weights.to(like).reshape(shape)


def at_temperature(points: Mapping[str, Any], before: float, after: float) -> dict[str, Any]:
    """Operating points that give the same labels when the temperature of the probabilities changes.

    A score is a sigmoid of a difference over T, so that t becomes σ(logit(t) · before / after); peaks likewise. Null
    for a structure is no entries, as everywhere.

    >>> moved = at_temperature({"lesion": {"threshold": 0.8, "aim": "dice"}}, 1.0, 2.0)
    >>> round(moved["lesion"]["threshold"], 6), moved["lesion"]["aim"]  # logit(0.8) = ln 4, halved ln 2
    (0.666667, 'dice')
    """

    def moved(value: float) -> float:
        if not 0 < value < 1:
            return value
        there = 1 / (1 + math.exp(-math.log(value / (1 - value)) * before / after))
        return min(max(there, _LEAST), 1 - _LEAST)

    return {
        name: {
            key: moved(float(value)) if key in ("threshold", "confidence") and value is not None else value
            for key, value in (point or {}).items()
        }
        for name, point in points.items()
    }


def read_points(points: Mapping[str, Any] | None, structures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Operating points by structure, checked.

    Raises:
        ValueError: no mapping, an unknown structure or entry, a threshold that is not between 0 and 1, a confidence
            outside 0 to 1.
    """
    if not isinstance(points or {}, Mapping):
        raise ValueError(f"operating_points is {points!r}; expected for example {{lesion: {{threshold: 0.3}}}}")
    found = {}
    for name, point in (points or {}).items():
        if name not in structures:
            raise ValueError(f"operating_points: no structure is called {name!r}; there are {', '.join(structures)}")
        if not isinstance(point or {}, Mapping):
            raise ValueError(f"operating_points: {name} is {point!r}; expected for example {{threshold: 0.3}}")
        for key, value in (point or {}).items():
            if key not in KNOWN:
                raise ValueError(f"operating_points: {name} has no entry {key!r}; known are {', '.join(KNOWN)}")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key == "threshold" and value is not None and not (number and 0 < value < 1):
                raise ValueError(f"operating_points: the threshold of {name} is {value!r}; expected between 0 and 1")
            if key == "confidence" and value is not None and not (number and 0 <= value <= 1):
                raise ValueError(f"operating_points: the confidence of {name} is {value!r}; expected 0 to 1")
        found[str(name)] = dict(point or {})
    return found
