"""Operating points held against the run that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.decided import OURS
from rarevox.transforms.decision import Decision
from rarevox.transforms.nested import NestedDecision


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
            f"{OURS} with a NestedDecision"
        )
    if points and inferer is not None and not hasattr(inferer, "decision"):
        raise RequestError(f"operating_points: the run's inferer knows none; they are for {OURS}")
