"""Which outputs a call asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rarevox.pipeline.inference.outputs.labels import LabelMap
from rarevox.pipeline.inference.outputs.output import Output
from rarevox.pipeline.inference.outputs.shares import Entropy, Probabilities


@dataclass(frozen=True)
class Asked:
    """What is wanted of each scan besides its label map: plain values, the same in every process of a call.

    Attributes:
        entropy: ``CASE_entropy.nii.gz``.
        probabilities: ``uint8`` or ``uint16`` for ``CASE_prob_STRUCTURE.nii.gz``.
    """

    entropy: bool = False
    probabilities: str | None = None


def outputs_of(asked: Asked, config: Mapping[str, Any]) -> list[Output]:
    """The outputs of a call, the label map first.

    Args:
        asked: what is wanted.
        config: the run's configuration, of which the structures count.
    """
    outputs: list[Output] = [LabelMap()]
    if asked.entropy:
        outputs.append(Entropy())
    if asked.probabilities:
        outputs.append(Probabilities(config["structures"], asked.probabilities))
    return outputs
