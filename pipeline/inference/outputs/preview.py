"""A picture of each scan with its structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.cohort.rows import FILES
from rarevox.pipeline.files import atomic
from rarevox.pipeline.inference.outputs.output import Result
from rarevox.pipeline.planes import three_planes, with_legend

if TYPE_CHECKING:
    from rarevox.pipeline.inference.watch import Watch

HEIGHT = 320
"""Pixels of the longest edge of a volume; a head's picture is about 850 × 320 pixels and 60 kB."""


class Preview:
    """``CASE_preview.jpg``: three planes through the most of the structures, the patient's right on the left;
    below them the case's name and those of the structures, each in its colour."""

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """Of the one file."""
        return [f"{item['case']}_preview.jpg"]

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Labels are enough."""
        return None

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Draw the first channel."""
        name = self.names(result.item)[0]
        values = list(result.structures.values())
        picture = three_planes(result.scan.array[0], result.labels, result.grid.affine, HEIGHT, values)
        picture = with_legend(picture, result.case, list(result.structures))
        with atomic(folder / name) as temporary:
            picture.save(temporary, "JPEG", quality=85)
        return {FILES: [name], "preview": name}
