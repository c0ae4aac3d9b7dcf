"""The decision of a run, from probabilities to labels, in its configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rarevox.pipeline.errors import RequestError, nearest

OURS, _NATIVE = "DenseInferer", "LabelsOnNativeGridd"


def with_decision(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the entries of operating points; one of an earlier version gets them, empty.

    >>> config = with_decision({"inferer": {"_target_": "somewhere.DenseInferer"}})
    >>> config["operating_points"], config["inferer"]["decision"]
    ({}, '@decision')
    """
    found = dict(config)
    if "decision" in found or _name(found["inferer"]) != OURS:
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
