"""What tests of plans share: a plan's file edited, and rows of a fingerprint."""

from __future__ import annotations

from typing import Any

import yaml

from rarevox.pipeline.data.dataset import Dataset


def edit(dataset: Dataset, **values: Any) -> None:
    """Values in the plan of a dataset, as a user writes them into it."""
    path = dataset.path.parent / "plan.yaml"
    path.write_text(yaml.dump(yaml.safe_load(path.read_text(encoding="utf-8")) | values))


def rows(*spacings: tuple[float, float, float], orientation: str = "RAS") -> list[dict[str, Any]]:
    """Cases of these voxel edges."""
    return [{"orientation": orientation, "spacing_mm": list(spacing)} for spacing in spacings]


def channel(**more: float) -> dict[str, Any]:
    """A channel's intensities; 0 to 100, but for ``more``."""
    image = {"p00_5": 0.0, "p05": 1.0, "p50": 50.0, "p95": 90.0, "p99_5": 100.0, "zero_share": 0.0} | more
    return {"image_median_over_cases": image, "foreground_pooled": {"p00_5": -43.0, "p99_5": 171.0}}
