"""The label map of a scan and the volumes of its structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.data.volumes import write_labels
from rarevox.pipeline.inference.outputs.output import Result

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch


class LabelMap:
    """``CASE_seg.nii.gz`` on the scan's grid, and in the row ``output`` and ``volume_ml`` (ml by structure)."""

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """Of the one file."""
        return [f"{item['case']}_seg.nii.gz"]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Labels are enough."""
        return None

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write the map."""
        path = write_labels(folder / self.names(result.item)[0], result.labels, result.grid)
        return {"output": path.name, "volume_ml": volumes_ml(result)}


def volumes_ml(result: Result) -> dict[str, float]:
    """The volume of each structure and each union of structures, in millilitres."""
    labels, structures = result.labels, result.structures
    volume = {name: round(_count(labels, [value]) * result.grid.voxel_ml, 4) for name, value in structures.items()}
    for name, values in result.composites.items():
        volume[name] = round(sum(volume[one] for one, value in structures.items() if value in values), 4)
    return volume


def _count(labels: np.ndarray, values: Sequence[int]) -> float:
    return float(sum(np.count_nonzero(labels == value) for value in values))
