"""Configurations of runs that earlier versions trained, as this version reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.inference.decided import OURS, with_decision


def brought_up(config: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """A configuration of a run with what an earlier version did not write into it.

    The entries of operating points (:func:`rarevox.pipeline.inference.decided.with_decision`), and the margin at the
    faces of the patches that the loss left out, as ``configs/train.yaml`` of the run has it: without it the inferer
    would trust the network near its own padding.
    """
    found = with_decision(config)
    inferer = found.get("inferer")
    if not isinstance(inferer, Mapping) or "loss_margin" in inferer:
        return found
    if str(inferer.get("_target_", "")).rsplit(".", 1)[-1] != OURS:
        return found
    trained = run / "configs" / "train.yaml"
    margin = read_yaml(trained).get("loss_margin", 0) if trained.is_file() else 0
    return found | {"inferer": {**inferer, "loss_margin": margin}} if _plain(margin) else found


def _plain(margin: object) -> bool:
    """Whether it is numbers, not all of them 0: an expression is not resolved here."""
    values = margin if isinstance(margin, list) else [margin]
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return whole and any(values)
