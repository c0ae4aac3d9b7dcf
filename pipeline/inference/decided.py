"""The decision of a run, from probabilities to labels: in its configurations, and in what its Segmenter computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.inference.watch import Watch
from rarevox.transforms.decision import Decision
from rarevox.transforms.nested import NestedDecision

_OURS, _NATIVE = "DenseInferer", "LabelsOnNativeGridd"


def with_decision(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the entries of operating points; one of an earlier version gets them, empty.

    >>> config = with_decision({"inferer": {"_target_": "somewhere.DenseInferer"}})
    >>> config["operating_points"], config["inferer"]["decision"]
    ({}, '@decision')
    """
    found = dict(config)
    if "decision" in found or _name(found["inferer"]) != _OURS:
        return found
    found["operating_points"] = {}
    found["decision"] = {
        "_target_": "rarevox.transforms.Decision",
        "points": "@operating_points",
        "structures": "@structures",
    }
    found["inferer"] = dict(found["inferer"]) | {"decision": "@decision"}
    if isinstance(found.get("postprocessing"), dict):
        steps = [
            {**one, "inferer": "@inferer"} if _name(one) == _NATIVE else one
            for one in found["postprocessing"].get("transforms", [])
        ]
        found["postprocessing"] = {**found["postprocessing"], "transforms": steps}
    return found


def _name(component: Any) -> str:
    """The class that an entry builds, without its package."""
    target = component.get("_target_", "") if isinstance(component, Mapping) else ""
    return str(target).rsplit(".", 1)[-1]


def check_points(config: Mapping[str, Any], inferer: Any = None) -> None:
    """Refuse operating points that are none of the run's, or that its inferer does not know.

    Raises:
        RequestError: says which.
    """
    points, regions = config.get("operating_points"), config.get("regions")
    try:
        NestedDecision(points, regions) if regions else Decision(points, config["structures"])
    except ValueError as error:
        raise RequestError(str(error)) from error
    if regions and inferer is not None and not isinstance(getattr(inferer, "decision", None), NestedDecision):
        raise RequestError(
            f"the run learnt the nested regions {', '.join(regions)}, of which its inferer knows nothing; they are for "
            f"{_OURS} with a NestedDecision"
        )
    if points and inferer is not None and not hasattr(inferer, "decision"):
        raise RequestError(f"operating_points: the run's inferer knows none; they are for {_OURS}")


def threshold_settings(thresholds: Mapping[str, str]) -> list[str]:
    """``--threshold STRUCTURE=P`` as settings.

    >>> threshold_settings({"lesion": "0.3"})
    ['operating_points#lesion#threshold=0.3']

    Raises:
        RequestError: no number between 0 and 1.
    """
    for name, text in thresholds.items():
        try:
            fits = 0 < float(text) < 1
        except ValueError:
            fits = False
        if not fits:
            raise RequestError(f"--threshold {name}={text}: expected a probability between 0 and 1, such as 0.3")
    return [f"operating_points#{name}#threshold={float(text)!r}" for name, text in thresholds.items()]


def require_known(thresholds: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Refuse thresholds of what a run does not segment.

    Args:
        thresholds: of ``--threshold``, by structure.
        config: the run's.

    Raises:
        RequestError: says which, and what may be meant.
    """
    known = [*(config.get("regions") or config["structures"])]
    for name in thresholds:
        if name not in known:
            raise RequestError(
                f"--threshold {name}: the run segments no structure of that name; {nearest(name, known)}"
            )


class Together:
    """Several who watch the probabilities of one scan, as one :class:`rarevox.pipeline.inference.watch.Watch`.

    Args:
        watches: all of them.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.watches = tuple(watches)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        for one in self.watches:
            one.begin(shape)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Show a block to all."""
        for one in self.watches:
            one.take(log_probabilities, where)


def together(
    makers: Sequence[Callable[[Mapping[str, Any]], Watch]],
) -> Callable[[Mapping[str, Any]], Together] | None:
    """Makers of watches as one; None where there are none."""
    return (lambda item: Together([make(item) for make in makers])) if makers else None
